package world

import "time"

const (
	millisecond = Duration(time.Millisecond)
	second      = Duration(time.Second)
	minute      = Duration(time.Minute)
)

// Default is the world of the demo and the sandbox: the large providers with
// limits they do not publish, and one of each kind of trouble a sender meets.
// Recipient domains end in .example (RFC 2606), so that mail for them can reach
// nobody; the real domains of the large providers lead here too. Periods are
// those of real life: pass the sender's time scale to [World.Compress].
func Default() World {
	w := World{Name: "default", Seed: 1, CatchAll: "elsewhere"}
	w.Receivers = append(w.Receivers, largeProviders()...)
	w.Receivers = append(w.Receivers, ordinaryHosts()...)
	w.Receivers = append(w.Receivers, troubledHosts()...)
	w.Receivers = append(w.Receivers, deadEnds()...)
	return w
}

// largeProviders follow the figures of the built-in MX rules; what they hide is
// tighter than what they state.
func largeProviders() []Receiver {
	mixed := map[Fate]int{
		FateUnknown: 8, FateFull: 6, FateDisabled: 4,
		FateOOBUnknown: 2, FateOOBFull: 1, FateComplaint: 1, FateUnsubscribe: 2, FateAutoReply: 5,
	}
	return []Receiver{
		{
			Name: "google", Dialect: "gmail", TLS: TLSRequired,
			Domains: []Domain{{"gmail.example", 300}, {"googlemail.example", 20}, {"gmail.com", 0}, {"googlemail.com", 0}},
			Hosts: []Host{
				{Name: "gmail-smtp-in.l.google.com", Preference: 5},
				{Name: "alt1.gmail-smtp-in.l.google.com", Preference: 10},
				{Name: "alt2.gmail-smtp-in.l.google.com", Preference: 20},
			},
			Stated: Limits{Connections: 5, MessagesPerConnection: 50, MessageRate: Rate{Count: 200, Per: second, Burst: 50}},
			Hidden: Hidden{
				MessageRate: Rate{Count: 150, Per: second, Burst: 300}, At: AtEndOfData,
				Penalty: Penalty{After: 50, Window: minute, For: 2 * minute},
			},
			Latency: Latency{EndOfData: 4 * millisecond, Jitter: 50}, Mailboxes: mixed,
		},
		{
			Name: "yahoo", Dialect: "yahoo",
			Domains: []Domain{{"yahoo.example", 90}, {"aol.example", 20}, {"yahoo.com", 0}, {"aol.com", 0}, {"ymail.com", 0}},
			Hosts: []Host{
				{Name: "mta5.am0.yahoodns.net", Preference: 1},
				{Name: "mta6.am0.yahoodns.net", Preference: 1},
				{Name: "mta7.am0.yahoodns.net", Preference: 1},
			},
			Stated:  Limits{Connections: 10, MessagesPerConnection: 20},
			Hidden:  Hidden{Connections: 8, MessagesPerConnection: 15},
			Latency: Latency{EndOfData: 3 * millisecond, Jitter: 50}, Mailboxes: mixed,
		},
		{
			Name: "outlook", Dialect: "outlook",
			Domains: []Domain{{"outlook.example", 110}, {"hotmail.example", 60}, {"outlook.com", 0}, {"hotmail.com", 0}, {"live.com", 0}, {"msn.com", 0}},
			Hosts:   []Host{{Name: "outlook-com.olc.protection.outlook.com", Preference: 5}},
			Stated:  Limits{Connections: 5, MessagesPerConnection: 50},
			Hidden:  Hidden{MessageRate: Rate{Count: 150, Per: second, Burst: 300}, At: AtMail},
			Latency: Latency{EndOfData: 5 * millisecond, Jitter: 50}, Mailboxes: mixed,
		},
		{
			Name: "microsoft365", Dialect: "outlook",
			Domains: []Domain{{"contoso.example", 40}, {"fabrikam.example", 20}},
			Hosts:   []Host{{Name: "{tenant}.mail.protection.outlook.com", Preference: 0}},
			Stated:  Limits{Connections: 5, MessagesPerConnection: 50},
			Replies: map[Situation]string{
				SayUnknown: "550 5.4.1 Recipient address rejected: Access denied. [{id}.prod.protection.outlook.com]",
			},
			Mailboxes: map[Fate]int{FateUnknown: 15, FateFull: 2, FateDisabled: 2},
		},
		{
			Name: "apple", Dialect: "apple",
			Domains: []Domain{{"icloud.example", 50}, {"icloud.com", 0}, {"me.com", 0}, {"mac.com", 0}},
			Hosts:   []Host{{Name: "mx01.mail.icloud.com", Preference: 10}, {Name: "mx02.mail.icloud.com", Preference: 10}},
			Stated:  Limits{Connections: 10, MessagesPerConnection: 5}, Mailboxes: mixed,
		},
		{
			Name: "orange", Dialect: "orange", TLS: TLSRequired,
			Domains: []Domain{{"orange.example", 40}, {"orange.fr", 0}, {"wanadoo.fr", 0}},
			Hosts:   []Host{{Name: "smtp-in.orange.fr", Preference: 10}},
			Stated:  Limits{Connections: 2, MessagesPerConnection: 100}, Hidden: Hidden{Connections: 2},
			Mailboxes: mixed,
		},
		{
			Name: "gmx", Dialect: "gmx",
			Domains: []Domain{{"gmx.example", 35}, {"gmx.net", 0}, {"gmx.de", 0}},
			Hosts:   []Host{{Name: "mx00.emig.gmx.net", Preference: 10}, {Name: "mx01.emig.gmx.net", Preference: 10}},
			Stated:  Limits{Connections: 4, MessagesPerConnection: 20}, Mailboxes: mixed,
		},
	}
}

// generic is what the rules say of receivers they do not know.
func generic() Limits {
	return Limits{
		Connections: 10, MessagesPerConnection: 100,
		ConnectionRate: Rate{Count: 100, Per: minute, Burst: 10},
		MessageRate:    Rate{Count: 100, Per: second, Burst: 100},
	}
}

// single is a receiver with one domain and one host of its own.
func single(name, dialect, domain string, share int) Receiver {
	return Receiver{
		Name: name, Dialect: dialect, Stated: generic(),
		Domains: []Domain{{domain, share}},
		Hosts:   []Host{{Name: "mx." + domain, Preference: 10}},
	}
}

func ordinaryHosts() []Receiver {
	company := single("company", "exchange", "northwind.example", 40)
	company.Mailboxes = map[Fate]int{FateUnknown: 20, FateFull: 3}

	implicit := single("implicit", "exim", "smallshop.example", 10)
	implicit.DNS = DNSImplicit

	elsewhere := single("elsewhere", "postfix", "village.example", 30)
	return []Receiver{company, implicit, elsewhere}
}

func troubledHosts() []Receiver {
	greylister := single("greylister", "postfix", "uni-nord.example", 30)
	greylister.Greylist = Greylist{Delay: 5 * minute}

	stale := single("stale", "exim", "old-isp.example", 30)
	stale.Mailboxes = map[Fate]int{FateUnknown: 250, FateFull: 150, FateDisabled: 100}

	blocker := single("blocker", "exchange", "fortress.example", 10)
	blocker.Mailboxes = map[Fate]int{FateBlock: 400, FateSpam: 400}

	tarpit := single("tarpit", "postfix", "molasses.example", 10)
	tarpit.Latency = Latency{Greeting: 1500 * millisecond, Command: 150 * millisecond, EndOfData: 500 * millisecond, Jitter: 30}

	flapping := single("flapping", "postfix", "flaky.example", 15)
	flapping.Outages = []Outage{{For: 20 * minute, Every: 60 * minute}}

	backup := single("backup", "postfix", "twohosts.example", 15)
	backup.Hosts = []Host{
		{Name: "mx1.twohosts.example", Preference: 10, Dead: true},
		{Name: "mx2.twohosts.example", Preference: 20},
	}

	dropper := single("dropper", "postfix", "cutoff.example", 10)
	dropper.Mailboxes = map[Fate]int{FateDrop: 300}

	broken := single("broken", "exim", "oddball.example", 10)
	broken.Quirks = []Quirk{
		{Kind: QuirkNoEnhanced},
		{Kind: QuirkLowerCase},
		{Kind: QuirkLFLineEnds, Every: 2},
		{Kind: QuirkBareCode, Every: 3},
		{Kind: QuirkDataWithoutRcpt},
		{Kind: QuirkMixedMultiline, Every: 4},
		{Kind: QuirkDropAtHello, Every: 5},
		{Kind: QuirkEarlyReply, Every: 7},
	}
	return []Receiver{greylister, stale, blocker, tarpit, flapping, backup, dropper, broken}
}

func deadEnds() []Receiver {
	return []Receiver{
		{Name: "null_mx", DNS: DNSNullMX, Domains: []Domain{{"nomail.example", 3}}},
		{Name: "nxdomain", DNS: DNSNXDomain, Domains: []Domain{{"gone.example", 2}}},
	}
}

// Open is a world for throughput runs: three receivers that take mail as fast as
// it comes. The limits stated for them are far above what one machine reaches.
func Open() World {
	w := World{Name: "open", Seed: 1, CatchAll: "open1"}
	for _, name := range []string{"open1", "open2", "open3"} {
		w.Receivers = append(w.Receivers, Receiver{
			Name: name, Dialect: "postfix",
			Domains: []Domain{{name + ".example", 1}},
			Hosts:   []Host{{Name: "mx." + name + ".example", Preference: 10}},
			Stated:  Limits{Connections: 100, MessagesPerConnection: 10000},
		})
	}
	return w
}
