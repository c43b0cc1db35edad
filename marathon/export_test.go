package marathon

// Waiting is how much work waits for the loop.
func (m *Marathon) Waiting() int { return len(m.inbox) }
