"""What arrays may be: nested containers of them, their memory and their layout."""
