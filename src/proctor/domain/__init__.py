"""Pure decisions: no input or output, no SQL, no asyncio."""
