package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
