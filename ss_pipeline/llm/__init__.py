"""Who answers a drafting request: the port, and the rules that need no key."""
