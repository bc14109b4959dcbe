package mxrules

// journal keeps the last decisions of a path.
type journal struct{}

func (j *journal) note(*Governor, int64, string) {}

func newLearner(m Mode, t Timings) Learner {
	if m == GovernorOn {
		return NewAdaptive(t)
	}
	return NewStatic(t)
}
