package inbound

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// inBubble runs a story with a server in virtual time.
func inBubble(t *testing.T, change func(*ServerOptions), story func(*post)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, change)
		defer p.end()
		story(p)
	})
}

// annsBounce returns the message that ours names; its Message-ID says nothing.
func annsBounce(messageID string) string {
	return string(bounceOf("whoever@sender.example", messageID, "<https://x.example/>"))
}

const noID = "x@y.example"

func TestABounceTakesEffectOnceBeforeItsReply(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		s := p.sender()
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		returns := p.book.returns()
		if len(returns) != 1 {
			t.Fatalf("%d returns, want 1", len(returns))
		}
		r := returns[0]
		if r.Kind != OutOfBandBounce || r.Ref != ours || r.Confirm || r.Verdict.Code != bounce.CodeInvalidRecipient || r.Reply.Code != 550 || r.Text == "" || !r.Time.Equal(time.Now()) {
			t.Errorf("told %+v", r)
		}
		s.mail(strings.ToUpper(p.token)+"@"+strings.ToUpper(bounceDomain), annsBounce(noID), "250")
		s.say("QUIT", "221")
		s.gone()
		p.saw(Observation{Kind: "bounce", Effect: "applied"}, Observation{Kind: "bounce", Effect: "repeated"})
	})
}

func TestOnlyAddressesIssuedOrConfiguredAreTaken(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		stranger := testKeys(t, 2).Token(ours)
		for _, k := range []struct{ to, reply, reason string }{
			{p.token + "@" + bounceDomain, "250", ""},
			{"abuse@" + bounceDomain, "250", ""},
			{"PostMaster@" + bounceDomain, "250", ""},
			{"fbl@" + bounceDomain, "250", ""},
			{"unsubscribe@" + bounceDomain, "250", ""},
			{stranger + "@" + bounceDomain, "550 5.1.1", ReasonForgedToken},
			{p.token[:len(p.token)-2] + "aa@" + bounceDomain, "550 5.1.1", ReasonForgedToken},
			{"ann@" + bounceDomain, "550 5.1.1", ReasonUnknownAddress},
			{"x+" + p.token + "@" + bounceDomain, "550 5.1.1", ReasonUnknownAddress},
			{"ann%corp.example.net@" + bounceDomain, "550 5.1.1", ReasonUnknownAddress},
			{p.token + "@sub." + bounceDomain, "550 5.7.1", ReasonRelay},
			{"ann@corp.example.net", "550 5.7.1", ReasonRelay},
			{"@" + bounceDomain + ":ann@corp.example.net", "550 5.7.1", ReasonRelay},
			{"\"ann@corp.example.net\"@" + bounceDomain, "550 5.1.1", ReasonUnknownAddress},
		} {
			s := p.sender()
			before := len(p.observed())
			s.say("MAIL FROM:<>", "250")
			s.say("RCPT TO:<"+k.to+">", k.reply)
			s.say("QUIT", "221")
			seen := p.observed()[before:]
			if k.reason == "" && len(seen) > 0 || k.reason != "" && (len(seen) != 1 || seen[0] != refused(k.reason)) {
				t.Errorf("%s: observed %+v, want refusal %q", k.to, seen, k.reason)
			}
		}
	})
}

func TestConfiguredAddressesReplaceTheUsualOnes(t *testing.T) {
	change := func(o *ServerOptions) {
		o.Addresses = func() []string { return []string{"abuse@brand.example"} }
		o.Unsubscribe = func() []string { return []string{} }
	}
	inBubble(t, change, func(p *post) {
		s := p.sender()
		s.say("MAIL FROM:<ann@corp.example.net>", "250")
		s.say("RCPT TO:<abuse@brand.example>", "250")
		s.say("RCPT TO:<abuse@"+bounceDomain+">", "550 5.1.1")
		s.say("RCPT TO:<unsubscribe@"+bounceDomain+">", "550 5.1.1")
		s.say("QUIT", "221")
	})
}

// TestWhatMailsCause sends one mail of each sort and says what becomes of it.
func TestWhatMailsCause(t *testing.T) {
	keys := testKeys(t, 1)
	token, other := keys.Token(ours), keys.Token(theirs)
	at := "@" + bounceDomain
	complaint := func(kind, to, id string) string {
		return "From: fbl@isp.example\nSubject: complaint\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\nA complaint.\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: " + kind +
			"\nUser-Agent: x\nVersion: 1\nOriginal-Rcpt-To: " + to + "\n--b\nContent-Type: message/rfc822\n\nMessage-ID: <" + id + ">\nTo: " + to + "\n\nhello\n--b--\n"
	}
	failure := annsBounce(noID)
	reply := func(subject, more string) string {
		return "From: Ann <" + oursTo + ">\nSubject: " + subject + "\n" + more + "\nPlease read this.\n"
	}
	for _, k := range []struct {
		name, to, mail string
		kind, effect   string
		reason         string
		kept           int
	}{
		{"a failure", token + at, failure, "bounce", "applied", "", 0},
		{"a failure told to the postmaster, with the Message-ID", "postmaster" + at, annsBounce(token + at), "bounce", "applied", "", 0},
		{"the same about another recipient", "postmaster" + at, strings.ReplaceAll(annsBounce(token+at), oursTo, "bob@corp.example.net"), "bounce", EffectUnprocessed, ReasonOtherRecipient, 1},
		{"a failure that nothing ties to a message", "postmaster" + at, failure, "bounce", EffectUnprocessed, ReasonNoToken, 1},
		{"a forged token beside a good one", token + at, annsBounce(token[:len(token)-2] + "aa" + at), "bounce", EffectUnprocessed, ReasonForgedToken, 1},
		{"somebody else's mail returned to our token", token + at, annsBounce(other + at), "bounce", EffectUnprocessed, ReasonConflict, 1},
		{"a message that is gone", other + at, failure, "bounce", EffectUnprocessed, ReasonUnknownMessage, 1},
		{"a delay", token + at, strings.ReplaceAll(failure, "Action: failed", "Action: delayed"), "bounce", EffectNone, "delayed", 0},
		{"a delivery", token + at, strings.ReplaceAll(failure, "Action: failed", "Action: delivered"), "bounce", EffectNone, "delivered", 0},
		{"a relayed mail", token + at, strings.ReplaceAll(failure, "Action: failed", "Action: relayed"), "bounce", EffectNone, "relayed", 0},
		{"an expanded one", token + at, strings.ReplaceAll(failure, "Action: failed", "Action: expanded"), "bounce", EffectNone, "expanded", 0},
		{"a complaint", "fbl" + at, complaint("abuse", oursTo, token+at), "complaint", "applied", "", 0},
		{"a complaint about somebody else's mail", "fbl" + at, complaint("abuse", "bob@corp.example.net", token+at), "complaint", EffectUnprocessed, ReasonOtherRecipient, 1},
		{"a complaint without any token", "fbl" + at, complaint("abuse", oursTo, noID), "complaint", EffectUnprocessed, ReasonNoToken, 1},
		{"a report of an authentication failure", "fbl" + at, complaint("auth-failure", oursTo, token+at), "complaint", EffectNone, "auth-failure", 0},
		{"not spam", "fbl" + at, complaint("not-spam", oursTo, token+at), "complaint", EffectNone, "not-spam", 0},
		{"out of office", token + at, reply("Automatic reply: News", ""), "auto_reply", EffectNone, "", 0},
		{"a challenge", token + at, reply("Please confirm your message", "Auto-Submitted: auto-replied\n"), "challenge", EffectNone, "", 0},
		{"an unsubscribe with its sealed token", "unsubscribe" + at, reply(sealedToken, ""), "unsubscribe", "applied", "", 0},
		{"the same, folded by a mail program", "unsubscribe" + at, reply(sealedToken[:20]+"\n "+sealedToken[20:], ""), "unsubscribe", "applied", "", 0},
		{"the same, as encoded words", "unsubscribe" + at, reply("=?utf-8?q?"+strings.ReplaceAll(sealedToken, "_", "=5F")+"?=", ""), "unsubscribe", "applied", "", 0},
		{"the same, with the link in the text", "unsubscribe" + at, reply("stop", "\nhttps://u.sender.example/u/"+sealedToken+"\n"), "unsubscribe", "applied", "", 0},
		{"an unsubscribe sent to the return path", token + at, reply("unsubscribe", ""), "unsubscribe", "applied", "", 0},
		{"an answer to the mail, sent to the unsubscribe address", "unsubscribe" + at, reply("Re: News", "In-Reply-To: <"+token+at+">\n"), "unsubscribe", "applied", "", 0},
		{"an unsubscribe that names nobody's token", "unsubscribe" + at, reply("AQABq83vSealedTokenOfSomebodyElsesServer42", ""), "unsubscribe", EffectUnprocessed, ReasonNoToken, 1},
		{"a program's unsubscribe, from nobody, with its sealed token", "unsubscribe" + at, "Subject: " + sealedToken + "\nAuto-Submitted: auto-replied\n\n", "unsubscribe", "applied", "", 0},
		{"nobody's letter to the unsubscribe address", "unsubscribe" + at, "Subject: hello\n\n", "other", EffectUnprocessed, ReasonNotUnderstood, 1},
		{"a person's letter", "abuse" + at, reply("Hello", ""), "other", EffectUnprocessed, ReasonNotUnderstood, 1},
		{"nothing at all", "abuse" + at, "", "other", EffectUnprocessed, ReasonNotUnderstood, 1},
	} {
		t.Run(k.name, func(t *testing.T) {
			inBubble(t, nil, func(p *post) {
				sender := ""
				if strings.HasPrefix(k.mail, "From: Ann") {
					sender = oursTo
				}
				p.sender().mailFrom(sender, k.to, k.mail, "250")
				p.saw(Observation{Kind: k.kind, Effect: k.effect, Reason: k.reason})
				if p.folder.Len() != k.kept {
					t.Errorf("%d mails kept, want %d", p.folder.Len(), k.kept)
				}
			})
		})
	}
}

func TestASenderIsToldToTryAgainWhileNothingCanBeMadeDurable(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		s := p.sender()
		p.book.failing(errors.New("disk full"))
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "451 4.3.0")
		s.mail("unsubscribe@"+bounceDomain, "From: ann@corp.example.net\nSubject: "+sealedToken+"\n\n", "451")
		p.book.failing(nil)
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		p.saw(Observation{Effect: EffectDeferred}, Observation{Effect: EffectDeferred}, Observation{Kind: "bounce", Effect: "applied"})
	})
}

func TestASenderIsToldToTryAgainWhenTheFolderFails(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		if err := os.Rename(p.folder.dir, p.folder.dir+".away"); err != nil {
			t.Fatal(err)
		}
		s := p.sender()
		s.mail("abuse@"+bounceDomain, "Subject: hello\n\nhello\n", "451 4.3.0")
		if err := os.Rename(p.folder.dir+".away", p.folder.dir); err != nil {
			t.Fatal(err)
		}
		s.mail("abuse@"+bounceDomain, "Subject: hello\n\nhello\n", "250")
		if p.folder.Len() != 1 {
			t.Errorf("%d mails kept, want 1", p.folder.Len())
		}
	})
}

// A ledger that never answers must not keep the sender waiting for longer than
// senders wait.
func TestALedgerThatHangsDefersTheMail(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		p.book.hold = make(chan struct{})
		began := time.Now()
		p.sender().mail(p.token+"@"+bounceDomain, annsBounce(noID), "451")
		if took := time.Since(began); took != settleTimeout {
			t.Errorf("answered after %s, want %s", took, settleTimeout)
		}
	})
}

func TestAMailThatCannotBeReadIsKept(t *testing.T) {
	inBubble(t, func(o *ServerOptions) { o.Classifier = func() *Classifier { panic("a mistake of ours") } }, func(p *post) {
		p.sender().mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		p.saw(Observation{Kind: "other", Effect: EffectUnprocessed, Reason: ReasonUnreadable})
		if p.folder.Len() != 1 {
			t.Errorf("%d mails kept, want 1", p.folder.Len())
		}
	})
}

func TestEachAddresseeOfAMailHasItsOwnEffectAndOneCopyIsKept(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		s := p.sender()
		s.say("MAIL FROM:<>", "250")
		for _, to := range []string{p.token, "postmaster", "abuse", "postmaster"} {
			s.say("RCPT TO:<"+to+"@"+bounceDomain+">", "250")
		}
		s.say("DATA", "354")
		s.say(crlf(annsBounce(noID))+"\r\n.", "250")
		unattributed := Observation{Kind: "bounce", Effect: EffectUnprocessed, Reason: ReasonNoToken}
		p.saw(Observation{Kind: "bounce", Effect: "applied"}, unattributed, unattributed)
		if p.folder.Len() != 1 {
			t.Errorf("%d mails kept, want 1", p.folder.Len())
		}
	})
}

func TestAKeptMailIsReadInTheSameWayFromItsFile(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		other := testKeys(t, 1).Token(theirs)
		p.sender().mail(other+"@"+bounceDomain, "\n\n"+annsBounce(noID), "250")
		files, err := filepath.Glob(filepath.Join(p.folder.dir, "*.eml"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files %v, %v", files, err)
		}
		raw, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		r := NewClassifier(bounce.Default(), testKeys(t, 1)).Classify(Parse(raw, Limits{}), Envelope{})
		if r.Kind != KindBounce || r.Attribution.Place != PlaceReturnPath || r.Attribution.Ref != theirs {
			t.Errorf("read as %s, %+v from\n%.400s", r.Kind, r.Attribution, raw)
		}
	})
}

func TestCloseAnswersWhatIsUnderWayAndEndsTheRest(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		p.book.hold = make(chan struct{})
		idle, busy, late := p.sender(), p.sender(), p.sender()
		busy.say("MAIL FROM:<>", "250")
		busy.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		busy.say("DATA", "354")
		busy.send(crlf(annsBounce(noID)) + "\r\n.\r\n")
		late.say("MAIL FROM:<>", "250")
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- p.Close(context.Background()) }()
		idle.expect("421")
		idle.gone()
		late.expect("421")
		late.gone()
		close(p.book.hold)
		busy.expect("250")
		busy.expect("421")
		busy.gone()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := p.Serve(&incoming{closed: make(chan struct{})}); !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve of a closed server: %v", err)
		}
	})
}

func TestCloseCutsOffWhatTakesTooLong(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		p.book.hold = make(chan struct{})
		busy, slow := p.sender(), p.sender()
		for _, s := range []*sender{busy, slow} {
			s.say("MAIL FROM:<>", "250")
			s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
			s.say("DATA", "354")
		}
		busy.send(crlf(annsBounce(noID)) + "\r\n.\r\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		synctest.Wait()
		if told := p.book.returns(); len(told) > 0 {
			t.Errorf("told %+v", told)
		}
	})
}

// serverTLS is a configuration with a certificate of its own.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.sender.example"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// secure does the handshake and goes on in TLS.
func (s *sender) secure() {
	s.t.Helper()
	c := tls.Client(s.Conn, &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
	if err := c.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	s.Conn = c
	s.br.Reset(c)
}

func TestMailOverTLS(t *testing.T) {
	config := serverTLS(t)
	inBubble(t, func(o *ServerOptions) { o.TLS = config }, func(p *post) {
		s := p.dial("192.0.2.7")
		s.expect("220")
		if hello := s.say("EHLO mx.example.net", "250"); !strings.Contains(hello, "STARTTLS") || !strings.Contains(hello, "SIZE 10485760") {
			t.Errorf("EHLO: %q", hello)
		}
		s.say("STARTTLS", "220")
		s.secure()
		if hello := s.say("EHLO mx.example.net", "250"); strings.Contains(hello, "STARTTLS") {
			t.Errorf("EHLO within TLS: %q", hello)
		}
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		p.saw(Observation{Kind: "bounce", Effect: "applied"})
	})
}

// BenchmarkServer is one client's bounces, one after the other on one connection in memory.
func BenchmarkServer(b *testing.B) {
	p := open(b, func(o *ServerOptions) {
		o.MessagesPerMinute = 1 << 30
		o.TransactionTimeout, o.SessionTimeout = time.Hour, time.Hour
	})
	defer p.end()
	s := p.sender()
	envelope := "MAIL FROM:<>\r\nRCPT TO:<" + p.token + "@" + bounceDomain + ">\r\nDATA\r\n"
	mail := crlf(annsBounce(noID)) + "\r\n.\r\n"
	b.ReportAllocs()
	for b.Loop() {
		s.send(envelope)
		s.expect("250")
		s.expect("250")
		s.expect("354")
		s.send(mail)
		s.expect("250")
	}
}
