//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// What is sent: a newsletter of two parts, together 10 KB, with five variables.
const (
	fromDomain = "brand.example"
	from       = "news@" + fromDomain
	fromName   = "Brand"
	selector   = "bench"
	subject    = "{{ first_name }}, news from the road to {{ city }}"
	leaveURL   = "https://u.brand.example/{{ member }}"
	domains    = 10 // recipient domains
)

var (
	paragraph = strings.Repeat("The posting stations of the cursus publicus kept fresh horses for the courier. ", 5)
	text      = "Dear {{ first_name }},\n\nyou have {{ points }} points ({{ tier }}).\n\n" +
		strings.Repeat(paragraph+"\n\n", 9) + "Greetings to {{ city }}\n\nLeave: {{ unsubscribe_url }}\n"
	html = "<html><body><p>Dear {{ first_name }},</p><p>you have {{ points }} points ({{ tier }}).</p>\n" +
		strings.Repeat("<p>"+paragraph+"</p>\n", 12) +
		"<p>Greetings to {{ city }}</p><p><a href=\"{{ unsubscribe_url }}\">Leave</a></p></body></html>\n"
)

var (
	firstNames = []string{"Julia", "Marcus", "Livia", "Titus", "Flavia", "Gaius", "Aurelia"}
	cities     = []string{"Lugdunum", "Burdigala", "Augusta Treverorum", "Vindobona", "Londinium"}
	tiers      = []string{"bronze", "silver", "gold"}
)

// address is where message i goes, i from 0.
func address(i int) string {
	return fmt.Sprintf("r%07d@d%d.mail.example", i, i%domains)
}

// indexOf is the message of an address; -1 for none of ours.
func indexOf(addr []byte) int {
	if len(addr) < 9 || addr[0] != 'r' || addr[8] != '@' {
		return -1
	}
	i, err := strconv.Atoi(string(addr[1:8]))
	if err != nil {
		return -1
	}
	return i
}

func variables(i int) []byte {
	return fmt.Appendf(nil, `{"first_name":%q,"city":%q,"points":%d,"tier":%q,"member":"m%07d"}`,
		firstNames[i%len(firstNames)], cities[i%len(cities)], i, tiers[i%len(tiers)], i)
}

func recipients(n int) []*veredusv1.Recipient {
	list := make([]*veredusv1.Recipient, n)
	for i := range list {
		list[i] = recipient(i)
	}
	return list
}

func recipient(i int) *veredusv1.Recipient {
	return &veredusv1.Recipient{Address: address(i), Variables: variables(i)}
}

var (
	sender      = &veredusv1.Sender{From: from, DisplayName: fromName}
	content     = &veredusv1.Content{Subject: subject, Text: text, Html: html}
	unsubscribe = &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, Url: leaveURL}
)

const listID = "news." + fromDomain

func delivery(id string) *veredusv1.CreateDeliveryRequest {
	return &veredusv1.CreateDeliveryRequest{
		DeliveryId: id,
		Delivery:   &veredusv1.Delivery{Sender: sender, Content: content, Unsubscribe: unsubscribe, ListId: listID},
	}
}

// single is message i by itself.
func single(i int) *veredusv1.SendMessageRequest {
	return &veredusv1.SendMessageRequest{
		Sender: sender, Content: content, Unsubscribe: unsubscribe, ListId: listID,
		Recipient: recipient(i), RequestId: fmt.Sprintf("probe-%d", i),
	}
}

// composer renders messages with the relay's own composer, unsigned, for a relay that
// composes nothing.
type composer struct {
	tmpl *compose.Template
	date time.Time
}

func newComposer() (*composer, error) {
	tmpl, err := compose.Compile(compose.Source{
		From: compose.Mailbox{Name: fromName, Address: from}, Subject: subject, Text: text, HTML: html,
		ListID: listID, Unsubscribe: compose.UnsubscribeOwnURL, UnsubscribeURL: leaveURL,
	})
	return &composer{tmpl: tmpl, date: time.Now()}, err
}

func (c *composer) mail(i int) ([]byte, error) {
	m, err := c.tmpl.Render(context.Background(), compose.Job{
		To: address(i), Variables: variables(i), MessageID: fmt.Sprintf("bench.%07d@%s", i, fromDomain), Date: c.date,
	})
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", i, err)
	}
	return m.Bytes, nil
}

// mails are the first n messages.
func (c *composer) mails(n int) (list [][]byte, err error) {
	list = make([][]byte, n)
	for i := range list {
		if list[i], err = c.mail(i); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// key is the DKIM key of a run.
type key struct {
	file   string // PEM
	record string // the value of its TXT record
}

// makeKey makes an RSA-2048 key.
func makeKey(dir string) (*key, error) {
	signer, err := dkim.GenerateRSA(2048)
	if err != nil {
		return nil, err
	}
	data, err := dkim.MarshalPEM(signer)
	if err != nil {
		return nil, err
	}
	known, err := dkim.NewKey(fromDomain, selector, signer)
	if err != nil {
		return nil, err
	}
	k := &key{file: filepath.Join(dir, "key.pem"), record: dkim.Record(known)}
	return k, dkim.WriteKeyFile(k.file, data)
}
