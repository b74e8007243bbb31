"""The DeRTa paper's protocol in one command: what is asked, what it will cost, and what came of it beside the paper."""
