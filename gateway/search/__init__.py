"""The vector store behind one interface: passages, records, and two adapters."""
