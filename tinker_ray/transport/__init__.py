"""The one package that talks HTTP: requests and answers as values, retries, connection pools."""
