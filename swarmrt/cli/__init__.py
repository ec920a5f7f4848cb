"""The command line. One file a family of commands; `app` puts them together."""
