"""Who may do what: API keys and their owners, tokens, signed download links."""
