"""Attacks, one file each. `PLUGINS` maps a name to its class, imported only when it is asked for."""

PLUGINS: dict[str, str] = {
    "direct": "attacks.direct:Direct",
    "prefill": "attacks.prefill:Prefill",
    "completion": "attacks.completion:Completion",
    "code": "attacks.code:Code",
    "code_raw": "attacks.code_raw:CodeRaw",
    "cipher": "attacks.cipher:SelfCipher",
    "jailbreakchat": "attacks.jailbreakchat:JailbreakChat",
    "many_shot": "attacks.many_shot:ManyShot",
    "best_of_n": "attacks.best_of_n:BestOfN",
    "adaptive_prefill": "attacks.adaptive_prefill:AdaptivePrefill",
    "pair": "attacks.pair:Pair",
    "tap": "attacks.tap:Tap",
    "gcg": "attacks.gcg:Gcg",
    "probe_sampling": "attacks.probe:ProbeSampling",
    "autodan": "attacks.autodan:AutoDan",
    "recorded": "attacks.recorded:Recorded",
    "derta_code": "attacks.derta:DertaCode",
    "derta_jailbreakchat": "attacks.derta:DertaJailbreakChat",
    "derta_cipher": "attacks.derta:DertaCipher",
    "derta_completion": "attacks.derta:DertaCompletion",
}
