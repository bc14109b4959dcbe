package mxrules

import (
	"math"
	"math/bits"
	"time"
)

// meter is a generic cell rate algorithm (ITU-T I.371, "virtual scheduling"):
// over any window it lets at most window/interval + burst events pass. Times
// are nanoseconds of the governor's clock, which starts at 0; so the zero tat
// is a full bucket.
type meter struct {
	interval int64 // between two events; 0 is no limit
	slack    int64 // (burst-1) * interval
	tat      int64 // theoretical arrival time of the next event
}

// maxDebt keeps sums of times far from overflow.
const maxDebt = math.MaxInt64 / 8

func rateMeter(r Rate) meter {
	return newMeter(r.interval(), int64(r.Burst))
}

func newMeter(interval, burst int64) meter {
	if interval <= 0 {
		return meter{}
	}
	burst = min(max(burst, 1), max(1, int64(maxRateBurst)/interval))
	return meter{interval: interval, slack: (burst - 1) * interval}
}

// ready is when the next event may pass; at or before t means now.
func (m *meter) ready() int64 { return m.tat - m.slack }

// take records n events at t.
func (m *meter) take(t int64, n int64) {
	if m.interval == 0 || n <= 0 {
		return
	}
	n = min(n, maxDebt/m.interval)
	m.tat = min(max(m.tat, t)+n*m.interval, t+maxDebt)
}

// credit is the time's worth of events that may pass at t: from the whole
// bucket, slack+interval, down to any debt.
func (m *meter) credit(t int64) int64 {
	return t + m.slack + m.interval - max(m.tat, t)
}

// setCredit sets what may pass at t, at most a whole bucket.
func (m *meter) setCredit(t, credit int64) {
	whole := m.slack + m.interval
	m.tat = t + whole - min(credit, whole)
}

// reshape gives the meter another rate at t. The events that might have passed
// stay the same number, cut to the new burst, so that no change and no series
// of changes creates an event. A meter that had no rate starts empty, because
// what passed before was not counted.
func (m *meter) reshape(t int64, to meter) {
	if to.interval == 0 || m.interval == to.interval && m.slack == to.slack {
		to.tat = m.tat
		*m = to
		return
	}
	credit := int64(0)
	if m.interval != 0 {
		credit = mulDivFloor(m.credit(t), to.interval, m.interval)
	}
	to.setCredit(t, credit)
	*m = to
}

// spend raises the theoretical arrival time to at least tat.
func (m *meter) spend(tat int64) {
	if m.interval != 0 {
		m.tat = max(m.tat, tat)
	}
}

// mulDivFloor is floor(a*b/c) for positive b and c, held within +-maxDebt.
func mulDivFloor(a, b, c int64) int64 {
	neg := a < 0
	if neg {
		a = -a
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return sign(maxDebt, neg)
	}
	q, rem := bits.Div64(hi, lo, uint64(c))
	if neg && rem != 0 {
		q++
	}
	return sign(int64(min(q, maxDebt)), neg)
}

func sign(n int64, neg bool) int64 {
	if neg {
		return -n
	}
	return n
}

// quota meters an hourly or daily number continuously. Where part of it is kept
// for transactional mail, bulk is a second, slower meter which all mail is
// charged to but which holds only bulk mail: bulk never brings the total above
// its share, transactional mail finds the rest free.
type quota struct {
	all, bulk meter
}

// bulkPercent is the share of the hourly quota that bulk mail may use; the
// other 5 % are kept for transactional mail.
const bulkPercent = 95

func hourlyQuota(n int) quota {
	q := quota{all: rateMeter(quotaRate(n, time.Hour))}
	if q.all.interval != 0 {
		burst := (q.all.slack/q.all.interval + 1) * bulkPercent / 100
		q.bulk = newMeter(ceilDiv(q.all.interval*100, bulkPercent), burst)
	}
	return q
}

func dailyQuota(n int) quota {
	return quota{all: rateMeter(quotaRate(n, 24*time.Hour))}
}

func (q *quota) ready(transactional bool) int64 {
	if transactional {
		return q.all.ready()
	}
	return max(q.all.ready(), q.bulk.ready())
}

func (q *quota) take(t, n int64) {
	q.all.take(t, n)
	q.bulk.take(t, n)
	// Transactional mail beyond bulk's share is a bounded debt of bulk mail, else
	// an hour of it would stop bulk for minutes after.
	q.bulk.tat = min(q.bulk.tat, t+q.bulk.slack+2*q.bulk.interval+bulkDebt)
}

// bulkDebt is how long bulk mail waits at most, after transactional mail has
// used more than its share.
const bulkDebt = int64(time.Minute)

func (q *quota) reshape(t int64, to quota) {
	q.all.reshape(t, to.all)
	q.bulk.reshape(t, to.bulk)
}

// drain empties the buckets: the next event passes one interval after t.
func (q *quota) drain(t int64) {
	q.all.drain(t)
	q.bulk.drain(t)
}

func (m *meter) drain(t int64) { m.spend(t + m.slack + m.interval) }
