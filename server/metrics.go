package server

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/public"
)

// otherProvider is the label of receivers that no rule names: the label's values
// stay few whatever domains mail goes to.
const otherProvider = "other"

// metrics are the counters of one server, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	messages *prometheus.CounterVec
	attempts *prometheus.CounterVec
	bounces  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	ingested *prometheus.CounterVec
	calls    *prometheus.CounterVec
	streams  *prometheus.GaugeVec
	commits  prometheus.Histogram
	version  prometheus.Gauge
	returned *prometheus.CounterVec
	refused  *prometheus.CounterVec
	readMail prometheus.Histogram
	dropped  prometheus.Counter
	links    *prometheus.CounterVec
	obeyed   prometheus.Histogram
	removed  *prometheus.CounterVec
	shed     *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_messages_total", Help: "Settled messages by outcome (delivered, deferred, bounced, expired, suppressed) and provider.",
		}, []string{"outcome", "provider"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_attempts_total", Help: "SMTP transactions by provider.",
		}, []string{"provider"}),
		bounces: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_failures_total", Help: "Settlements that were no success, by bounce code and outcome.",
		}, []string{"code", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "veredus_attempt_duration_seconds", Help: "Time of a transaction, from MAIL to its last reply.",
			Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30, 100, 300},
		}, []string{"provider"}),
		ingested: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_recipients_total", Help: "Recipients made durable, by result (accepted, ignored, rejected); accepted includes ignored.",
		}, []string{"result"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_grpc_calls_total", Help: "Calls ended, by method and code.",
		}, []string{"method", "code"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "veredus_grpc_streams", Help: "Streams open now, by method.",
		}, []string{"method"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "veredus_store_write_seconds", Help: "Time of one durable write of the relay.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5},
		}),
		version: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "veredus_config_version", Help: "Version of the configuration in force, from 1 at start.",
		}),
		returned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_inbound_mails_total", Help: "Mails that came back, by kind (bounce, complaint, auto_reply, challenge, unsubscribe, other) and result (an effect, none, or why it was kept unprocessed).",
		}, []string{"kind", "result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_inbound_refused_total", Help: "What the inbound listener refused, by cause.",
		}, []string{"cause"}),
		readMail: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "veredus_inbound_seconds", Help: "Time from the end of a mail that came back to its durable effect.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "veredus_inbound_dropped_total", Help: "Mails removed from the full folder of unprocessed mail, the oldest first.",
		}),
		links: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "veredus_unsubscribe_requests_total", Help: "Requests and mails to hosted unsubscribe links, by result.",
		}, []string{"result"}),
		obeyed: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "veredus_unsubscribe_seconds", Help: "Time from an unsubscribe request to its durable suppression.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10},
		}),
		removed: newRemoved(),
		shed:    newShed(),
	}
	m.registry.MustRegister(m.messages, m.attempts, m.bounces, m.duration, m.ingested, m.calls, m.streams, m.commits, m.version,
		m.returned, m.refused, m.readMail, m.dropped, m.links, m.obeyed, m.removed, m.shed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

var outcomeNames = map[mta.Outcome]string{
	mta.Delivered: "delivered", mta.Deferred: "deferred", mta.Bounced: "bounced", mta.Expired: "expired", mta.Suppressed: "suppressed",
}

// observe counts what the relay settled.
func (m *metrics) observe(o mta.Observation) {
	provider, outcome := o.Provider, outcomeNames[o.Outcome]
	if provider == "" {
		provider = otherProvider
	}
	m.messages.WithLabelValues(outcome, provider).Inc()
	if o.Attempt {
		m.attempts.WithLabelValues(provider).Inc()
		m.duration.WithLabelValues(provider).Observe(o.Duration.Seconds())
	}
	if o.Outcome != mta.Delivered {
		m.bounces.WithLabelValues(strconv.Itoa(o.Code), outcome).Inc()
	}
}

// inbound counts what came to the listener for mail that comes back.
func (m *metrics) inbound(o inbound.Observation) {
	if o.Effect == inbound.EffectRefused {
		m.refused.WithLabelValues(o.Reason).Inc()
		return
	}
	m.dropped.Add(float64(o.Dropped))
	result := o.Effect
	if o.Effect == inbound.EffectUnprocessed || o.Effect == inbound.EffectNone && o.Reason != "" {
		result += "_" + o.Reason
	}
	m.returned.WithLabelValues(o.Kind, result).Inc()
	m.readMail.Observe(o.Duration.Seconds())
}

// unsubscribed counts what came to hosted links.
func (m *metrics) unsubscribed(r public.Result, took time.Duration) {
	m.links.WithLabelValues(string(r)).Inc()
	if r == public.Unsubscribed {
		m.obeyed.Observe(took.Seconds())
	}
}

// ingest counts a durable chunk.
func (m *metrics) ingest(i campaign.Ingested) {
	m.ingested.WithLabelValues("accepted").Add(float64(i.Accepted))
	m.ingested.WithLabelValues("ignored").Add(float64(i.Ignored))
	m.ingested.WithLabelValues("rejected").Add(float64(i.Rejected))
}

// queue is a collector of what the relay holds.
type queue struct {
	look func(ctx context.Context) (dispatch.Totals, error)

	messages, sessions, destinations *prometheus.Desc
}

// lookTime is how long a look may wait for the relay.
const lookTime = 10 * time.Second

func newQueue(look func(context.Context) (dispatch.Totals, error)) *queue {
	return &queue{
		look:         look,
		messages:     prometheus.NewDesc("veredus_queue_messages", "Messages in the relay with a known destination, by state (ready, deferred, in_flight).", []string{"state"}, nil),
		sessions:     prometheus.NewDesc("veredus_sessions", "SMTP sessions, dials included.", nil, nil),
		destinations: prometheus.NewDesc("veredus_destinations", "Destinations with mail or a path.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (q *queue) Describe(to chan<- *prometheus.Desc) {
	to <- q.messages
	to <- q.sessions
	to <- q.destinations
}

// Collect implements prometheus.Collector.
func (q *queue) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	t, err := q.look(ctx)
	if err != nil {
		return // the relay has stopped
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(q.messages, t.Ready, "ready")
	gauge(q.messages, t.Deferred, "deferred")
	gauge(q.messages, t.InFlight, "in_flight")
	gauge(q.sessions, int64(t.Sessions))
	gauge(q.destinations, int64(t.Destinations))
}
