"""The ways to write an answer, behind one interface (`engines.base.Engine`)."""
