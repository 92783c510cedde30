"""What else a store can look like: thin adapters over `inrstore.store`."""
