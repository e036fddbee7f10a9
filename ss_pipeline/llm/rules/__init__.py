"""The rule-based drafter: words, columns, roles, method and wording, without a key or a network."""
