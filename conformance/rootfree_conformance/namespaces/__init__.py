"""Array namespaces that the core runs on to learn about itself."""
