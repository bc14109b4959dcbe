package simulation

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mxrules"
)

// Learned is what governors know of a receiver at the start, as after a restart.
type Learned struct {
	// Receiver names it, Source whose path is meant; left out: of all sources.
	Receiver string `yaml:"receiver"`
	Source   string `yaml:"source"`
	// MessageRate and ConnectionRate are what it bears, Connections and
	// MessagesPerConnection its caps, Hourly its quota.
	MessageRate           string `yaml:"message_rate"`
	ConnectionRate        string `yaml:"connection_rate"`
	Connections           int    `yaml:"connections"`
	MessagesPerConnection int    `yaml:"messages_per_connection"`
	Hourly                int    `yaml:"hourly"`
	// Age is how long ago that was confirmed.
	Age world.Duration `yaml:"age"`
}

// memory is that as a governor keeps it.
func (l *Learned) memory() (mxrules.Memory, error) {
	at := simulate.Epoch().Add(-l.Age.Std()).UnixNano()
	known := func(value float64) mxrules.Learned {
		if value <= 0 {
			return mxrules.Learned{}
		}
		return mxrules.Learned{Value: value, At: at, Seen: 1}
	}
	rate := func(key, text string) (mxrules.Learned, error) {
		if text == "" {
			return mxrules.Learned{}, nil
		}
		r, err := mxrules.ParseRate(text)
		if err != nil {
			return mxrules.Learned{}, fmt.Errorf("%s: %w", key, err)
		}
		return known(r.PerSecond()), nil
	}
	m := mxrules.Memory{
		Connections: known(float64(l.Connections)), MessagesPerConnection: known(float64(l.MessagesPerConnection)), Hourly: known(float64(l.Hourly)),
	}
	var err error
	if m.MessageRate, err = rate("message_rate", l.MessageRate); err != nil {
		return m, err
	}
	m.ConnectionRate, err = rate("connection_rate", l.ConnectionRate)
	return m, err
}

// maxAge is beyond what governors remember.
const maxAge = 365 * 24 * time.Hour

func (s *Scenario) checkLearned() error {
	for i := range s.Learned {
		l, path := &s.Learned[i], fmt.Sprintf("learned[%d]", i)
		if s.receiver(l.Receiver) == nil {
			return s.problem(path+".receiver", "there is no receiver %q; name one of receivers", l.Receiver)
		}
		if l.Source != "" && !slices.Contains(s.sourceNames(), l.Source) {
			return s.problem(path+".source", "there is no source %q; name one of pools, or leave it out for all", l.Source)
		}
		if l.Age < 0 || l.Age.Std() > maxAge {
			return s.problem(path+".age", "%v; use a duration from 0 to %v", l.Age.Std(), maxAge)
		}
		if least, most := min(l.Connections, l.MessagesPerConnection, l.Hourly), max(l.Connections, l.MessagesPerConnection, l.Hourly); least < 0 || most > math.MaxInt32 {
			return s.problem(path, "counts from %d to %d; use 0 (not known) to %d", least, most, math.MaxInt32)
		}
		if _, err := l.memory(); err != nil {
			return s.problem(path, "%v", err)
		}
	}
	return nil
}

func (s *Scenario) sourceNames() []string {
	var names []string
	for _, p := range s.Pools {
		for _, src := range p.Sources {
			if !slices.Contains(names, src.Name) {
				names = append(names, src.Name)
			}
		}
	}
	return names
}

// usage is what is known of all paths to the receivers, by their keys; paths that sources share
// are those of "*".
func (s *Scenario) usage(destinations []simulate.Destination) map[string]mxrules.Usage {
	usage := map[string]mxrules.Usage{}
	for i := range s.Learned {
		l := &s.Learned[i]
		m, _ := l.memory() // checked before
		sources := []string{l.Source}
		if l.Source == "" {
			sources = append(s.sourceNames(), "*")
		}
		for _, d := range destinations {
			if d.Group != l.Receiver {
				continue
			}
			for _, source := range sources {
				usage[source+">"+d.Name] = mxrules.Usage{Learned: m}
			}
		}
	}
	return usage
}

// govern puts one governor in place of that of every rule.
func (s *Scenario) govern() error {
	mode, err := mxrules.ParseMode(s.Governor)
	if err != nil {
		return s.problem("governor", "%v", err)
	}
	rules := s.rules.All()
	for i := range rules {
		rules[i].Set = rules[i].Set.With(mxrules.FieldGovernor)
		rules[i].Limits.Governor = mode
	}
	if n := len(rules); n == 0 || !rules[n-1].Generic() {
		rules = append(rules, mxrules.Rule{
			ID: "scenario-governor", Set: mxrules.FieldsOf(mxrules.FieldGovernor), Limits: mxrules.Limits{Governor: mode},
		})
	}
	if s.rules, err = mxrules.NewRules(rules, s.rules.Providers()); err != nil {
		return s.problem("governor", "%v", err)
	}
	return nil
}
