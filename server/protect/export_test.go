package protect

import "context"

// Begin does what Run begins with.
func (m *Monitor) Begin(ctx context.Context) error { return m.begin(ctx) }

// JudgeNews does what Run does at each turn.
func (m *Monitor) JudgeNews(ctx context.Context) bool { return m.judgeNews(ctx) }

// Wording is a reply without what varies.
var Wording = wordingOf
