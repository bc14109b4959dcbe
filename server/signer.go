package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/veredus/veredus/dkim"
)

// logSigners says what makes the signatures of these keys. Where Go must, although
// libcrypto could do it in a quarter of the time, it says why.
func (s *Server) logSigners(keys []*dkim.Key) {
	for library, n := range countLibraries(keys) {
		s.log.Info("dkim: signer in use", "library", library, "keys", n)
	}
	told := map[string]bool{}
	for _, k := range keys {
		if k.Slow == nil || told[k.Slow.Error()] {
			continue
		}
		told[k.Slow.Error()] = true
		s.log.Warn("dkim: Go makes RSA signatures, at four times the cost; use a build with libcrypto, and install OpenSSL 3 (libcrypto.so.3)", "key", dkim.RecordName(k), "cause", k.Slow)
	}
}

// countLibraries counts the keys that each library signs with.
func countLibraries(keys []*dkim.Key) map[string]int {
	counts := map[string]int{}
	for _, k := range keys {
		counts[k.Library()]++
	}
	return counts
}

// signers is a collector of what makes signatures, by the keys in force.
type signers struct {
	keys        func() []*dkim.Key
	info, fails *prometheus.Desc
}

func newSigners(keys func() []*dkim.Key) *signers {
	return &signers{
		keys:  keys,
		info:  prometheus.NewDesc("veredus_dkim_signer_info", "DKIM keys in force, by the library that makes their signatures (OpenSSL with its version, or Go).", []string{"library"}, nil),
		fails: prometheus.NewDesc("veredus_dkim_signer_failures_total", "Signatures that Go had to make because libcrypto failed, by the keys in force.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (s *signers) Describe(to chan<- *prometheus.Desc) {
	to <- s.info
	to <- s.fails
}

// Collect implements prometheus.Collector.
func (s *signers) Collect(to chan<- prometheus.Metric) {
	keys := s.keys()
	for library, n := range countLibraries(keys) {
		to <- prometheus.MustNewConstMetric(s.info, prometheus.GaugeValue, float64(n), library)
	}
	var failures uint64
	for _, k := range keys {
		if f, ok := k.Signer.(interface{ Failures() uint64 }); ok {
			failures += f.Failures()
		}
	}
	to <- prometheus.MustNewConstMetric(s.fails, prometheus.CounterValue, float64(failures))
}
