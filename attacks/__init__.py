"""Attacks, one file each. `PLUGINS` maps a name to its class, imported only when it is asked for."""

PLUGINS: dict[str, str] = {
    "direct": "attacks.direct:Direct",
    "pair": "attacks.pair:Pair",
    "tap": "attacks.tap:Tap",
}
