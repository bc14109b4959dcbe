package server

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	netmail "net/mail"
	"net/smtp"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
	"google.golang.org/grpc"

	"github.com/veredus/veredus/mta/returnpath"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// letters is a receiver that keeps the header of each mail by recipient.
type letters struct {
	mu sync.Mutex
	by map[string]letter
}

type letter struct {
	from   string // return path
	header netmail.Header
}

type hand struct {
	*letters
	from, to string
}

func (l *letters) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &hand{letters: l}, nil }

func (h *hand) Mail(from string, _ *gosmtp.MailOptions) error { h.from = from; return nil }
func (h *hand) Rcpt(to string, _ *gosmtp.RcptOptions) error   { h.to = to; return nil }
func (h *hand) Reset()                                        {}
func (h *hand) Logout() error                                 { return nil }

func (h *hand) Data(r io.Reader) error {
	m, err := netmail.ReadMessage(r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, m.Body); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by[h.to] = letter{h.from, m.Header}
	return nil
}

func (l *letters) of(t *testing.T, to string) letter {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got, ok := l.by[to]
	if !ok {
		t.Fatalf("%s got no mail", to)
	}
	return got
}

// returning is a node that mailed some readers, each of whom has the mail.
func returning(t *testing.T, recipients ...string) (*node, *letters) {
	t.Helper()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	box := &letters{by: map[string]letter{}}
	receiver := gosmtp.NewServer(box)
	receiver.Domain, receiver.ErrorLog = "mx.example", log.New(io.Discard, "", 0)
	go func() { _ = receiver.Serve(port) }()
	t.Cleanup(func() { _ = receiver.Close() })
	dir := t.TempDir()
	key(t, dir, "key.pem")
	cfg := parse(t, dir, fmt.Sprintf(`
relay: {mode: redirect, redirect: '%s', hostname: mta.brand.example}
dkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem, bounce_domain: bounce.brand.example}]}
inbound: {listen: '127.0.0.1:0', max_message_bytes: 100000}
public: {listen: '127.0.0.1:0'}
`, port.Addr()))
	n := begin(t, cfg, Options{})
	hosted(t, n.conn, "spring", recipients...)
	follow(t, n.conn)
	return n, box
}

// hosted is mailing with hosted unsubscribes from the list "spring".
func hosted(t *testing.T, conn *grpc.ClientConn, id string, recipients ...string) {
	t.Helper()
	c := veredusv1.NewCampaignServiceClient(conn)
	_, err := c.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: &veredusv1.Delivery{
		Sender: &veredusv1.Sender{From: "news@brand.example"}, ListId: "spring.brand.example",
		Content:     &veredusv1.Content{Subject: "Hello", Text: "Spring is here."},
		Unsubscribe: &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED},
	}})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, conn, "deliveries/"+id, recipients...)
	if _, err := c.StartDelivery(t.Context(), &veredusv1.StartDeliveryRequest{Name: "deliveries/" + id}); err != nil {
		t.Fatal(err)
	}
}

// truth is what must not change without a cause: figures, entries and events.
func (n *node) truth(t *testing.T) string {
	t.Helper()
	d, err := n.campaigns.GetDelivery(t.Context(), &veredusv1.GetDeliveryRequest{Name: "deliveries/spring"})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := veredusv1.NewAddressServiceClient(n.conn).ListAddressEntries(t.Context(), &veredusv1.ListAddressEntriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, next := n.store.Ends()
	k := d.GetKpis()
	return fmt.Sprintf("%v complaints=%d unsubscribes=%d entries=%d events=%d", k.GetLedger(), k.GetComplaints(), k.GetUnsubscribes(), len(entries.GetEntries()), next[0])
}

// counted is a counter's value, summed over the labels that the pattern fits.
func (n *node) counted(t *testing.T, pattern string) (sum int) {
	t.Helper()
	_, body := n.get(t, "/metrics")
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+` (\d+)$`).FindAllStringSubmatch(body, -1) {
		var v int
		if _, err := fmt.Sscan(m[1], &v); err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// dsn is a bounce mail about a recipient.
func dsn(recipient string) string {
	return strings.ReplaceAll("From: MAILER-DAEMON@mx.example\nTo: sender\nSubject: Undelivered Mail Returned to Sender\nMIME-Version: 1.0\n"+
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nIt failed.\n\n--b\nContent-Type: message/delivery-status\n\n"+
		"Reporting-MTA: dns; mx.example\n\nFinal-Recipient: rfc822; "+recipient+"\nAction: failed\nStatus: 5.1.1\n"+
		"Diagnostic-Code: smtp; 550 5.1.1 user unknown\n\n--b--\n", "\n", "\r\n")
}

// complaint is a feedback report that quotes header fields of the mail and names its recipient.
func complaint(original, names string) string {
	return strings.ReplaceAll("From: fbl@mx.example\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\ncomplaint\n\n"+
		"--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nVersion: 1\nOriginal-Rcpt-To: "+names+"\n\n"+
		"--b\nContent-Type: message/rfc822\n\n"+original+"\n\nbody\n--b--\n", "\n", "\r\n")
}

// Who complains about a mail whose delivery was deleted gets no more of them: the link in it
// tells who that is. A complaint that names somebody else does nothing.
func TestAComplaintOutlivesItsDelivery(t *testing.T) {
	n, box := returning(t, "anna@a.example")
	if _, err := n.campaigns.DeleteDelivery(t.Context(), &veredusv1.DeleteDeliveryRequest{Name: "deliveries/spring"}); err != nil {
		t.Fatal(err)
	}
	header := box.of(t, "anna@a.example").header
	quoted := "Message-ID: " + header.Get("Message-Id") + "\nList-Unsubscribe: " + header.Get("List-Unsubscribe")
	excluded := func() *veredusv1.GetAddressResponse {
		got, err := veredusv1.NewAddressServiceClient(n.conn).GetAddress(t.Context(), &veredusv1.GetAddressRequest{Address: "anna@a.example"})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, names := range []string{"somebody@a.example", "Anna@a.example"} {
		if got := excluded(); got.GetExcluded() {
			t.Errorf("excluded before: %v", got)
		}
		if err := smtp.SendMail(n.InboundAddr(), nil, "", []string{"fbl@bounce.brand.example"}, []byte(complaint(quoted, names))); err != nil {
			t.Fatal(err)
		}
	}
	if got := excluded(); got.GetReason() != veredusv1.FailureReason_FAILURE_REASON_DENYLISTED || got.GetEntries()[0].GetOrigin() != veredusv1.AddressOrigin_ADDRESS_ORIGIN_COMPLAINT {
		t.Errorf("afterwards: %v", got)
	}
}

// Mail that nobody of ours caused, or that is about somebody else, changes nothing and is
// counted; the node goes on taking what is genuine.
func TestHostileMailChangesNothing(t *testing.T) {
	n, box := returning(t, "anna@a.example", "bert@a.example")
	anna, bert := box.of(t, "anna@a.example"), box.of(t, "bert@a.example")
	other, err := returnpath.NewKeys(returnpath.Key{ID: 1, Secret: [32]byte{9}})
	if err != nil {
		t.Fatal(err)
	}
	foreign := other.Token(returnpath.Ref{Handover: 1, Domain: 1, Order: 1, Delivery: 1}) + "@bounce.brand.example"
	token, _, _ := strings.Cut(anna.from, "@")
	bent := token[:len(token)/2] + "a" + token[len(token)/2+1:] // in the numbers, which the signature covers
	if bent == token {
		bent = token[:len(token)/2] + "b" + token[len(token)/2+1:]
	}
	nested := "Content-Type: multipart/mixed; boundary=x\r\n\r\n"
	for range 1000 {
		nested += "--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
	}
	postmaster := "postmaster@bounce.brand.example"
	before := n.truth(t)
	for name, mail := range map[string]struct {
		to, content string
		refused     bool
		counted     string
	}{
		"a forged token":                 {to: bent + "@bounce.brand.example", content: dsn("anna@a.example"), refused: true, counted: `veredus_inbound_refused_total\{cause="forged_token"\}`},
		"another node's token":           {to: foreign, content: dsn("anna@a.example"), refused: true, counted: `veredus_inbound_refused_total\{cause="forged_token"\}`},
		"a Message-ID as address":        {to: strings.Trim(anna.header.Get("Message-Id"), "<>"), content: dsn("anna@a.example"), refused: true, counted: `veredus_inbound_refused_total\{cause="forged_token"\}`},
		"relaying":                       {to: "victim@elsewhere.example", content: "hello\r\n", refused: true, counted: `veredus_inbound_refused_total\{cause="relaying_denied"\}`},
		"a token of somebody else":       {to: "fbl@bounce.brand.example", content: complaint("Message-ID: "+bert.header.Get("Message-Id"), "anna@a.example"), counted: `veredus_inbound_mails_total\{kind="complaint",result="unprocessed_other_recipient"\}`},
		"a forged Message-ID":            {to: "fbl@bounce.brand.example", content: complaint("Message-ID: <"+bent+"@bounce.brand.example>", "anna@a.example"), counted: `veredus_inbound_mails_total\{kind="complaint",result="unprocessed_forged_token"\}`},
		"a bounce without any token":     {to: postmaster, content: dsn("anna@a.example"), counted: `veredus_inbound_mails_total\{kind="bounce",result="unprocessed_no_token"\}`},
		"an unsubscribe without a token": {to: "unsubscribe@bounce.brand.example", content: "From: anna@a.example\r\nSubject: unsubscribe\r\n\r\nplease\r\n", counted: `veredus_inbound_mails_total\{kind="unsubscribe",result="unprocessed_no_token"\}`},
		"deep nesting":                   {to: postmaster, content: nested, counted: `veredus_inbound_mails_total\{kind="[a-z_]+",result="unprocessed_[a-z_]+"\}`},
		"broken MIME":                    {to: postmaster, content: "Content-Type: multipart/report; boundary\r\n\xff\xfe: \x00\r\n\r\n--\r\n\x00\xff", counted: `veredus_inbound_mails_total\{kind="[a-z_]+",result="unprocessed_[a-z_]+"\}`},
		"too large":                      {to: anna.from, content: dsn("anna@a.example") + strings.Repeat("x\r\n", 100_000), refused: true, counted: `veredus_inbound_refused_total\{cause="too_large"\}`},
	} {
		count := n.counted(t, mail.counted)
		err := smtp.SendMail(n.InboundAddr(), nil, "someone@mx.example", []string{mail.to}, []byte(mail.content))
		if (err != nil) != mail.refused {
			t.Errorf("%s: %v", name, err)
		}
		if now := n.truth(t); now != before {
			t.Errorf("%s changed %s into %s", name, before, now)
		}
		if now := n.counted(t, mail.counted); now != count+1 {
			t.Errorf("%s: counter %s went from %d to %d", name, mail.counted, count, now)
		}
	}
	kept, err := os.ReadDir(filepath.Join(n.cfg.DataDir, UnprocessedDir))
	if err != nil || len(kept) != 2*6 {
		t.Errorf("%d files are kept, %v", len(kept), err)
	}
	if err := smtp.SendMail(n.InboundAddr(), nil, "", []string{anna.from}, []byte(dsn("anna@a.example"))); err != nil {
		t.Fatal(err)
	}
	if now := n.truth(t); !strings.Contains(now, "sent:1") || !strings.Contains(now, "failed:1") || !strings.Contains(now, "entries=1") {
		t.Errorf("a genuine bounce: %s", now)
	}
}

// One click takes a reader off the list at once, by POST only, as often as it is
// repeated, and with the links of before a rotation of the keys; the next mailing leaves them out.
func TestOneClick(t *testing.T) {
	n, box := returning(t, "anna@a.example", "bert@a.example")
	link := func(to string) string {
		header := box.of(t, to).header
		if post := header.Get("List-Unsubscribe-Post"); post != "List-Unsubscribe=One-Click" {
			t.Errorf("List-Unsubscribe-Post: %q", post)
		}
		m := regexp.MustCompile(`<(http[^>]+)>`).FindStringSubmatch(header.Get("List-Unsubscribe"))
		if m == nil {
			t.Fatalf("List-Unsubscribe: %q", header.Get("List-Unsubscribe"))
		}
		return m[1]
	}
	addresses := veredusv1.NewAddressServiceClient(n.conn)
	if _, err := addresses.RotateUnsubscribeKey(t.Context(), &veredusv1.RotateUnsubscribeKeyRequest{}); err != nil {
		t.Fatal(err)
	}
	before := n.truth(t)
	for range 3 {
		resp, err := http.Get(link("anna@a.example"))
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("<form")) || len(resp.Cookies()) > 0 {
			t.Errorf("GET: %s", resp.Status)
		}
	}
	if now := n.truth(t); now != before {
		t.Errorf("a GET changed %s into %s", before, now)
	}
	for range 3 {
		resp, err := http.PostForm(link("anna@a.example"), url.Values{"List-Unsubscribe": {"One-Click"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Request.Response != nil {
			t.Errorf("POST: %s, redirected %v", resp.Status, resp.Request.Response != nil)
		}
	}
	mailto := regexp.MustCompile(`<mailto:([^?>]+)\?subject=([^>]+)>`).FindStringSubmatch(box.of(t, "bert@a.example").header.Get("List-Unsubscribe"))
	if mailto == nil {
		t.Fatal("no mailto beside the link")
	}
	if err := smtp.SendMail(n.InboundAddr(), nil, "someone@forwarder.example", mailto[1:2], []byte("Subject: "+mailto[2]+"\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if now := n.truth(t); !strings.Contains(now, "unsubscribes=2 entries=2") {
		t.Errorf("afterwards: %s", now)
	}
	if got := n.counted(t, `veredus_unsubscribe_seconds_count`); got != 2 {
		t.Errorf("the time to suppression was measured %d times", got)
	}
	hosted(t, n.conn, "summer", "anna@a.example", "bert@a.example", "carl@a.example")
	d, err := n.campaigns.GetDelivery(t.Context(), &veredusv1.GetDeliveryRequest{Name: "deliveries/summer"})
	if err != nil || d.GetKpis().GetLedger().GetIgnored() != 2 || d.GetKpis().GetIgnoredByReason()[0].GetReason() != veredusv1.FailureReason_FAILURE_REASON_DENYLISTED {
		t.Errorf("the next mailing: %v, %v", d.GetKpis(), err)
	}
}
