package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/returnpath"
)

const (
	inboundDir      = "../../mta/inbound/testdata/mails/"
	bounceOfTwo     = inboundDir + "set-of-emails--bsd-lhost-qmail-17.eml"
	complaintOfOne  = inboundDir + "stalwart-mail-auth--arf-003.eml"
	mailboxOfTwo    = inboundDir + "set-of-emails--bsd-rfc3464-28.eml"
	automaticAnswer = inboundDir + "set-of-emails--bsd-rfc3834-01.eml"
)

func runInbound(t *testing.T, in string, args ...string) (lines []inboundLine, errOut string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(context.Background(), append([]string{"inbound"}, args...), strings.NewReader(in), &out, &errs)
	for line := range strings.Lines(out.String()) {
		var l inboundLine
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines, errs.String(), status
}

func TestInboundPrintsOneLineForEachRecipient(t *testing.T) {
	lines, errOut, status := runInbound(t, "", bounceOfTwo, complaintOfOne, mailboxOfTwo, automaticAnswer)
	if status != exitOK || errOut != "" {
		t.Fatalf("status %d: %s", status, errOut)
	}
	want := []inboundLine{
		{bounceOfTwo, "bounce", "userunknown@libsisimai.net", 10, "user_unknown", "User unknown", "5.1.1", "failed", ""},
		{bounceOfTwo, "bounce", "mailboxfull@libsisimai.net", 22, "mailbox_full", "Mailbox full", "5.2.2", "failed", ""},
		{complaintOfOne, "complaint", "user@example.com", 90, "feedback", "Denylisted", "", "", ""},
		{mailboxOfTwo, "bounce", "kijitora@neko.example.jp", 0, "", "", "2.1.5", "delivered", ""},
		{mailboxOfTwo, "bounce", "info@neko.example.jp", 0, "", "", "2.1.5", "delivered", ""},
		{automaticAnswer, "auto_reply", "kijitora@example.net", 60, "auto_reply", "", "", "", ""},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %+v", len(lines), len(want), lines)
	}
	for i, w := range want {
		if lines[i] != w {
			t.Errorf("line %d: %+v, want %+v", i, lines[i], w)
		}
	}
}

func TestInboundReadsStandardInputAndNamesNobody(t *testing.T) {
	lines, _, status := runInbound(t, "From: ann@corp.example.net\nSubject: hello\n\nhello\n", "-")
	if status != exitOK || len(lines) != 1 || lines[0] != (inboundLine{File: "-", Kind: "other"}) {
		t.Errorf("status %d, %+v", status, lines)
	}
}

func TestInboundGoesOnPastAMissingFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.eml")
	lines, errOut, status := runInbound(t, "", missing, automaticAnswer)
	if status != exitFailed || len(lines) != 1 || !strings.Contains(errOut, missing) {
		t.Errorf("status %d, %d lines: %s", status, len(lines), errOut)
	}
}

func TestInboundUsesTheOperatorsRules(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	text := "rules:\n  - id: own.unknown\n    match: {text: [\"user unknown\"]}\n    tag: mailbox_disabled\n    examples: [\"550 user unknown\"]\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, errOut, status := runInbound(t, "", "--rules", rules, bounceOfTwo)
	if status != exitOK || len(lines) != 2 || lines[0].Tag != "mailbox_disabled" {
		t.Errorf("status %d, %+v: %s", status, lines, errOut)
	}
	if _, errOut, status := runInbound(t, ""); status != exitUsage || !strings.Contains(errOut, "file is missing") {
		t.Errorf("status %d: %s", status, errOut)
	}
}

// bouncedTo is a bounce that came to an address.
func bouncedTo(address string) string {
	return "Return-Path: <>\nDelivered-To: " + address + "\nFrom: MAILER-DAEMON@mx.example.net\nSubject: failure notice\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n" +
		"Reporting-MTA: dns; mx.example.net\n\nFinal-Recipient: rfc822; ann@corp.example.net\nAction: failed\nStatus: 5.1.1\n--b--\n"
}

func TestInboundNamesTheMessageByTheNodesKeys(t *testing.T) {
	older, current := returnpath.Key{ID: 1, Secret: [32]byte{1}}, returnpath.Key{ID: 2, Secret: [32]byte{31: 2}}
	file := filepath.Join(t.TempDir(), "returnpath.keys")
	text := fmt.Sprintf("# the current key comes first\n%d %x\n\n%d %x\n", current.ID, current.Secret, older.ID, older.Secret)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	id := mta.MessageID{Handover: 7, Domain: 3, Lane: 1, Order: 42}
	ref := returnpath.Ref{Handover: 7, Domain: 3, Lane: 1, Order: 42, Delivery: 9}
	stranger := returnpath.Key{ID: 2, Secret: [32]byte{9}}
	for _, k := range []struct {
		name string
		key  returnpath.Key
		args []string
		want string
	}{
		{"the current key", current, []string{"--keys", file}, "messages/" + id.String()},
		{"an older key", older, []string{"--keys", file}, "messages/" + id.String()},
		{"a stranger's key", stranger, []string{"--keys", file}, ""},
		{"no keys at hand", current, nil, ""},
	} {
		keys, err := returnpath.NewKeys(k.key)
		if err != nil {
			t.Fatal(err)
		}
		lines, errOut, status := runInbound(t, bouncedTo(keys.Token(ref)+"@bounce.sender.example"), append(k.args, "-")...)
		if status != exitOK || len(lines) != 1 || lines[0].Message != k.want || lines[0].Recipient != "ann@corp.example.net" {
			t.Errorf("%s: status %d, %+v, want message %q: %s", k.name, status, lines, k.want, errOut)
		}
	}
}

func TestInboundSaysWhatIsWrongWithAKeysFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "no key in it",
		"1 abcd\n":                             "line 1 is no key",
		"# x\n300 " + strings.Repeat("ab", 32): "line 2 is no key",
		"1 " + strings.Repeat("zz", 32):        "line 1 is no key",
		"1 " + strings.Repeat("00", 32):        "secret of key 1 is empty",
	} {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, status := runInbound(t, "", "--keys", file, "-"); status != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%q: status %d: %s", text, status, errOut)
		}
	}
	if _, errOut, status := runInbound(t, "", "--keys", filepath.Join(t.TempDir(), "none"), "-"); status != exitUsage || !strings.Contains(errOut, "--keys") {
		t.Errorf("status %d: %s", status, errOut)
	}
}
