package engine

// Memos is of how many clusters an engine keeps something.
func Memos(e *Engine) int { return len(e.memos.of) }
