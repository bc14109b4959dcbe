package inbound

import (
	"strconv"
	"strings"
	"testing"

	"github.com/veredus/veredus/mta/bounce"
)

// told is a mail as somebody's mail system writes it, and what it says.
type told struct {
	name            string
	header, body    string
	kind, recipient string
	code            string // "10", "22|20": any of them; empty: not looked at
	action          string
}

func (c told) check(t *testing.T) {
	t.Helper()
	raw := strings.TrimSpace(c.header) + "\n\n" + c.body
	if !strings.Contains(raw, "\nTo: ") {
		raw = "To: sender@sender.example\n" + raw
	}
	r := NewClassifier(bounce.Default(), nil).Classify(Parse([]byte(raw), Limits{}), Envelope{})
	if r.Kind.String() != c.kind {
		t.Errorf("%s: kind %s, want %s", c.name, r.Kind, c.kind)
	}
	if c.recipient != "" && strings.Join(named(r), " ") != c.recipient {
		t.Errorf("%s: recipients %v, want %s", c.name, named(r), c.recipient)
	}
	if len(r.Recipients) == 0 {
		return
	}
	first := r.Recipients[0]
	if c.code != "" && !strings.Contains("|"+c.code+"|", "|"+strconv.Itoa(first.Verdict.Code)+"|") {
		t.Errorf("%s: code %d by %s, want %s: %s", c.name, first.Verdict.Code, first.Verdict.Rule, c.code, first.Diagnostic)
	}
	if c.action != "" && first.Action.String() != c.action {
		t.Errorf("%s: action %s, want %s", c.name, first.Action, c.action)
	}
}

const daemon = "From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example.net>\nReturn-Path: <>\n"

var bounceForms = []told{
	{
		name: "MailMarshal", header: "From: postmaster@gw.example.net\nSubject: Undeliverable Mail: \"News\"",
		body: `Your message:
   From:    sender@sender.example
   Subject: News

Could not be delivered because of

550 5.1.1 User unknown

The following recipients were affected:
    ann@corp.example.net

Additional Information
======================
Original Sender:    <sender@sender.example>
Sender-MTA:         <10.11.12.13>
Remote-MTA:         <10.0.0.1>
Reporting-MTA:      <relay.corp.example.net>
MessageName:        <B549996730000.000000000001.0003.mml>
Last-Attempt-Date:  <16:21:07 Mon, 22 December 2014>
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10", action: "failed",
	},
	{
		name: "SurfControl", header: "From: Postmaster <postmaster@gw.example.net>\nSubject: Message could not be delivered\nX-Mailer: SurfControl E-mail Filter",
		body: `Your message could not be sent.
A transcript of the attempts to send the message follows.
The number of attempts made: 1
Addressed To: ann@corp.example.net

Thu 29 Apr 2010 23:34:45 +0900
Failed to send to identified host,
ann@corp.example.net: [192.0.2.5], 550 ann@corp.example.net... No such user

--- Message non-deliverable.
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Exchange 5.5", header: "From: System Administrator <postmaster@corp.example.net>\nSubject: Undeliverable: News\nX-Mailer: Internet Mail Service (5.5.2653.19)",
		body: `Your message

  To:      ann@corp.example.net
  Subject: News
  Sent:    Thu, 29 Apr 2004 16:51:51 -0500

did not reach the following recipient(s):

ann@corp.example.net on Thu, 29 Apr 2004 16:51:51 -0500
    The recipient name is not recognized
	The MTS-ID of the original message is: c=us;a= ;p=corp;l=EXCH0404292151JTBGVQCQ
    MSEXCH:IMS:CORP:HQ:EXCH 3550 (000B09B6) 550 5.1.1 unknown user
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Exchange 2003", header: "From: System Administrator <postmaster@corp.example.net>\nSubject: Undeliverable: News",
		body: `Your message did not reach some or all of the intended recipients.

      Subject:	News
      Sent:	4/29/2007 11:34 PM

The following recipient(s) cannot be reached:

      'ann@corp.example.net' on 4/29/2007 11:34 PM
            The e-mail account does not exist at the organization this message was sent to.  Check the e-mail address, or contact the recipient directly to find out the correct address.
            <mx.corp.example.net #5.1.1>
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Exchange 2010 without status part", header: "From: <postmaster@corp.example.net>\nSubject: Undeliverable: News\nContent-Type: text/html; charset=utf-8",
		body: `<html><head><style>p {color: red}</style></head><body><p><b>Delivery has failed to these recipients or groups:</b></p>
<p><a href="mailto:ann@corp.example.net">ann@corp.example.net</a><br>The recipient's mailbox is full and can't accept messages now. Please try resending this message later.</p>
<p>Diagnostic information for administrators:</p><p>Generating server: mx.corp.example.net</p>
<p>ann@corp.example.net<br>#550 5.2.2 STOREDRV.Deliver; mailbox full ##</p><p>Original message headers:</p>
<pre>Received: from a (192.0.2.1) by b with Microsoft SMTP
From: &lt;sender@sender.example&gt;
To: &lt;ann@corp.example.net&gt;
Subject: News
Message-ID: &lt;x@sender.example&gt;
</pre></body></html>`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "22",
	},
	{
		name: "Domino", header: "From: Postmaster@corp.example.net\nSubject: DELIVERY FAILURE: User ann (ann@corp.example.net) not listed in Domino Directory",
		body: `Your message

  Subject: News

was not delivered to:

  ann@corp.example.net

because:

  User ann (ann@corp.example.net) not listed in Domino Directory
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Smail", header: "From: <MAILER-DAEMON@isp.example.de>\nSubject: mail failed, returning to sender",
		body: `|------------------------- Message log follows: -------------------------|
 no valid recipients were found for this message
|------------------------- Failed addresses follow: ---------------------|
 <ann@corp.example.net> ... unknown user
|------------------------- Message text follows: ------------------------|
Received: from a by b with smtp
From: sender@sender.example
To: ann@corp.example.net
Subject: News
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "James", header: "From: postmaster@corp.example.net\nSubject: Error while processing message. Reason: (relaying denied)",
		body: `Hi. This is the James mail server at corp.example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out. Below
I include the list of recipients and the reason why I was unable to deliver
your message.

Failed recipient(s):
ann@corp.example.net

Error message below:
550 - Requested action not taken: no such user here

Message details:
  Subject: News
  Sent date: Thu Apr 29 01:20:50 JST 2012
  MAIL FROM: sender@sender.example
  RCPT TO: ann@corp.example.net
  From: News <sender@sender.example>
  To: ann@corp.example.net
  Size (in bytes): 1024
`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "QQ", header: "From: PostMaster@qq.com\nSubject: =?utf-8?B?57O757uf6YCA5L+hL1N5c3RlbXMgYm91bmNl?=\nContent-Type: text/html; charset=utf-8",
		body: `<div><h2>抱歉，您的邮件被退回来了……</h2><table><tr><td>原邮件信息：</td></tr><tr><td>时间</td><td>2019-04-29 10:11:12</td></tr>
<tr><td>主题</td><td>News</td></tr><tr><td>收件人</td><td>ann@qq.com</td></tr></table>
<p>退信原因：收件人邮箱地址(ann@qq.com)不存在，邮件无法送达。<br>host mx3.qq.com[203.205.219.57] said: 550 Mailbox not found. http://service.mail.qq.com/cgi-bin/help?subtype=1 (in reply to RCPT TO command)</p></div>`,
		kind: "bounce", recipient: "ann@qq.com", code: "10",
	},
	{
		name: "NetEase", header: "From: Postmaster@163.com\nSubject: =?utf-8?B?57O757uf6YCA5L+h?=\nContent-Type: text/plain; charset=utf-8",
		body: "抱歉，您的邮件被退回来了……\n\n原邮件信息：\n  时　间：2019-04-29 10:11:12\n  主　题：News\n  收件人：ann@163.com\n\n退信原因：\n  收件人ann@163.com的邮箱已满，无法接收新邮件。\n  英文说明:552 5.2.2 mailbox full\n",
		kind: "bounce", recipient: "ann@163.com", code: "22",
	},
	{
		name: "Verizon", header: "From: post_master@vtext.com\nSubject: Undeliverable Message",
		body: `Error: Message Undeliverable
Your message to the following recipient could not be delivered: 

Subject: News
RCPT TO: <5551234567@vtext.com>

550 - Requested action not taken: no such user here
`,
		kind: "bounce", recipient: "5551234567@vtext.com", code: "10",
	},
	{
		name: "GroupWise", header: "From: Mailer-Daemon@corp.example.net\nSubject: Message status - undeliverable",
		body: "The message that you sent was undeliverable to the following:\n\n\tann@corp.example.net (mailbox is full)\n\nPossibly truncated original message follows:\n\nReceived: from a by b\nFrom: sender@sender.example\nTo: ann@corp.example.net\nSubject: News\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "22",
	},
	{
		name: "Mercury", header: "From: Electronic Postmaster <postmaster@corp.example.net>\nSubject: Postmaster Notify: Delivery Failure.",
		body: "The local mail transport system has reported the following problems\nit encountered while trying to deliver your message:\n\n-------------------------------------------------------------\n*** ann@corp.example.net\n    5.1.1 User unknown.\n-------------------------------------------------------------\n\nYour mail message is being returned to you in the next part of this\nmessage.\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "MDaemon", header: "From: MDaemon@corp.example.net\nSubject: Permanent Delivery Failure",
		body: "The attached message had PERMANENT fatal delivery errors!\n\nAfter one or more unsuccessful delivery attempts the attached message has\nbeen removed from the mail queue on this server.\n\nFailed address: ann@corp.example.net\n\n--- Session Transcript ---\n Thu 2010-04-29 23:34:45: Connecting to corp.example.net\n Thu 2010-04-29 23:34:45: --> RCPT To:<ann@corp.example.net>\n Thu 2010-04-29 23:34:45: <-- 550 5.1.1 <ann@corp.example.net>: no such user\n--- End Transcript ---\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "CommuniGate", header: "From: MAILER-DAEMON@corp.example.net\nSubject: Undeliverable mail: News",
		body: "Failed to deliver to 'ann@corp.example.net'\nSMTP module(domain corp.example.net) reports:\n host corp.example.net says:\n 550 5.1.1 unknown user account\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Hotmail", header: "From: postmaster@mail.hotmail.com\nSubject: Delivery Status Notification (Failure)",
		body: "This is an automatically generated Delivery Status Notification.\n\nDelivery to the following recipients failed.\n\n       ann@hotmail.com\n\n",
		kind: "bounce", recipient: "ann@hotmail.com", action: "failed",
	},
	{
		name: "AOL transcript", header: daemon + "Subject: Returned mail: User unknown",
		body: "The original message was received at Thu, 29 Apr 2004 11:45:12 -0400 (EDT)\nfrom mx.sender.example [192.0.2.1]\n\n\n   ----- The following addresses had permanent fatal errors -----\n<ann@aol.com>\n\n   ----- Transcript of session follows -----\n... while talking to air-xj01.mail.aol.com.:\n>>> RCPT To:<ann@aol.com>\n<<< 550 MAILBOX NOT FOUND\n550 <ann@aol.com>... User unknown\n",
		kind: "bounce", recipient: "ann@aol.com", code: "10",
	},
	{
		name: "MMDF", header: "From: MMDF Mail System <mmdf@corp.example.net>\nSubject: Failed mail (msg.aa12345)",
		body: "    Your message could not be delivered to 'ann@corp.example.net' for\nthe following reason:  ' <ann@corp.example.net>... User unknown'\n\n    Your message follows:\n\nReceived: from a by b\nFrom: sender@sender.example\nTo: ann@corp.example.net\nSubject: News\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "WinRoute", header: "From: postmaster@corp.example.net\nSubject: Delivery failure (ann@corp.example.net)",
		body: "Your message has encountered delivery problems\nto the following recipient(s):\n\n    ann@corp.example.net\n(Was addressed to ann@corp.example.net)\nDelivery failed\n550 5.1.1 unknown recipient\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Spanish", header: "From: MAILER-DAEMON@isp.example.es\nSubject: Aviso: no se pudo entregar el mensaje\nContent-Type: text/plain; charset=utf-8",
		body: "Este mensaje no se ha podido entregar a los siguientes destinatarios:\n\n<ann@corp.example.net>:\n552 El buzón del destinatario está lleno\n\n--- Mensaje original\n\nFrom: sender@sender.example\nTo: ann@corp.example.net\nMessage-ID: <x@sender.example>\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "22",
	},
	{
		name: "German", header: "From: Postmaster <postmaster@isp.example.de>\nSubject: Unzustellbar: News\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "Ihre Nachricht konnte nicht zugestellt werden.\n\nEmpfänger: ann@corp.example.net\nGrund: 550 Benutzer unbekannt\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "French", header: "From: MAILER-DAEMON@isp.example.fr\nSubject: Échec de remise\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "Votre message n'a pas pu être remis au destinataire suivant :\n\n  ann@corp.example.net\n    La boîte du destinataire est pleine.\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "22",
	},
	{
		name: "Italian", header: "From: postmaster@isp.example.it\nSubject: Mancata consegna\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "Il messaggio non può essere recapitato ai seguenti destinatari:\n\n<ann@corp.example.net>: 550 utente sconosciuto\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Polish", header: "From: mailer-daemon@isp.example.pl\nSubject: Wiadomość niedoręczona\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "Wiadomość nie została dostarczona do następujących odbiorców:\n\nann@corp.example.net: 552 skrzynka odbiorcy jest przepełniona\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "22",
	},
	{
		name: "Russian", header: "From: mailer-daemon@isp.example.ru\nSubject: Сообщение не доставлено\nReturn-Path: <>\nContent-Type: text/plain; charset=koi8-r\nContent-Transfer-Encoding: 8bit",
		body: "\xf0\xc9\xd3\xd8\xcd\xcf \xce\xc5 \xcd\xcf\xd6\xc5\xd4 \xc2\xd9\xd4\xd8 \xc4\xcf\xd3\xd4\xc1\xd7\xcc\xc5\xce\xcf:\n\n  ann@corp.example.net\n    550 5.1.1 User unknown\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Japanese", header: "From: postmaster@isp.example.jp\nSubject: メールを送信できませんでした\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "以下の宛先へのメールは配信できませんでした。\n\n宛先：ann@corp.example.net\n理由：550 5.1.1 User unknown\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "Portuguese", header: "From: postmaster@isp.example.br\nSubject: Mensagem não entregue\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "Sua mensagem não pôde ser entregue aos seguintes destinatários:\n\n* ann@corp.example.net\n  550 5.2.2 Caixa postal cheia\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "22",
	},
	{
		name: "Dutch", header: "From: postmaster@isp.example.nl\nSubject: Onbestelbaar bericht\nReturn-Path: <>\nContent-Type: text/plain; charset=utf-8",
		body: "Uw bericht kon niet worden bezorgd bij de volgende ontvanger:\n\nann@corp.example.net (550 gebruiker onbekend)\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "delayed by Exim", header: "From: Mail Delivery System <Mailer-Daemon@mx.example.net>\nAuto-Submitted: auto-replied\nSubject: Warning: message 1AbCdE-000001-Qq delayed 24 hours",
		body: "This message was created automatically by mail delivery software.\nA message that you sent has not yet been delivered to one or more of its\nrecipients after more than 24 hours on the queue on mx.example.net.\n\nThe address to which the message has not yet been delivered is:\n\n  ann@corp.example.net\n    host mx.corp.example.net [192.0.2.1]\n    SMTP error from remote mail server after RCPT TO:<ann@corp.example.net>:\n    452 4.2.2 Mailbox full\n\nNo action is required on your part. Delivery attempts will continue for\nsome time.\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "22", action: "delayed",
	},
	{
		name: "delivered, in words", header: daemon + "Subject: Delivery Status Notification (Success)",
		body: "Your message was successfully delivered to the following recipient:\n\n  ann@corp.example.net\n",
		kind: "bounce", recipient: "ann@corp.example.net", code: "0", action: "delivered",
	},
}

func TestFormsOfBounces(t *testing.T) {
	for _, c := range bounceForms {
		t.Run(c.name, c.check)
	}
}

var otherForms = []told{
	{
		name: "feedback of Yahoo", header: "From: Yahoo! Mail Feedback <feedback@arf.mail.yahoo.com>\nSubject: Fw: News\nContent-Type: multipart/report; report-type=feedback-report; boundary=b",
		body: "--b\nContent-Type: text/plain\n\nThis is an email abuse report.\n\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\nVersion: 0.1\nOriginal-Rcpt-To: ann@yahoo.com\nReported-Domain: sender.example\n\n--b\nContent-Type: message/rfc822\n\nFrom: sender@sender.example\nTo: ann@yahoo.com\nSubject: News\n\nx\n--b--\n",
		kind: "complaint", recipient: "ann@yahoo.com", code: "90",
	},
	{
		name: "JMRP without a report part", header: "From: staff@hotmail.com\nSubject: complaint about message from 192.0.2.1\nContent-Type: multipart/mixed; boundary=b",
		body: "--b\nContent-Type: message/rfc822\n\nX-HmXmrOriginalRecipient: ann@outlook.com\nFrom: sender@sender.example\nTo: undisclosed\nSubject: News\n\nx\n--b--\n",
		kind: "complaint", recipient: "ann@outlook.com", code: "90",
	},
	{
		name: "AOL's loop", header: "From: scomp@aol.net\nSubject: Email Feedback Report for IP 192.0.2.1\nContent-Type: multipart/report; report-type=feedback-report; boundary=b",
		body: "--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: AOL SComp\nVersion: 0.1\n\n--b\nContent-Type: message/rfc822\n\nFrom: sender@sender.example\nTo: redacted\nSubject: News\n\nx\n--b--\n",
		kind: "complaint",
	},
	{
		name: "complaint by SES", header: "From: AWS Notifications <no-reply@sns.amazonaws.com>\nSubject: AWS Notification Message",
		body: `{"notificationType":"Complaint","complaint":{"complainedRecipients":[{"emailAddress":"ann@corp.example.net"}],"complaintFeedbackType":"abuse"},"mail":{"messageId":"m-1","destination":["ann@corp.example.net"]}}` + "\n\n--\nIf you wish to stop receiving notifications ...\n",
		kind: "complaint", recipient: "ann@corp.example.net", code: "90",
	},
	{
		name: "bounce by SES", header: "From: AWS Notifications <no-reply@sns.amazonaws.com>\nSubject: AWS Notification Message",
		body: `{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","bounceSubType":"General","bouncedRecipients":[{"emailAddress":"ann@corp.example.net","action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}]},"mail":{"messageId":"m-1"}}`,
		kind: "bounce", recipient: "ann@corp.example.net", code: "10",
	},
	{
		name: "authentication report", header: "From: dmarc@corp.example.net\nSubject: Report\nContent-Type: multipart/report; report-type=feedback-report; boundary=b",
		body: "--b\nContent-Type: message/feedback-report\n\nFeedback-Type: auth-failure\nVersion: 1\nOriginal-Rcpt-To: ann@corp.example.net\n\n--b--\n",
		kind: "complaint", recipient: "ann@corp.example.net",
	},
	{name: "vacation by RFC 3834", header: "From: ann@corp.example.net\nSubject: Re: News\nAuto-Submitted: auto-replied (vacation)", body: "Back in May.\n", kind: "auto_reply", recipient: "ann@corp.example.net", code: "60"},
	{name: "Exchange's automatic reply", header: "From: Ann <ann@corp.example.net>\nSubject: Automatic reply: News\nX-Auto-Response-Suppress: All\nAuto-Submitted: auto-generated", body: "I am out of the office.\n", kind: "auto_reply", recipient: "ann@corp.example.net", code: "60"},
	{name: "out of office, no header", header: "From: ann@corp.example.net\nSubject: Out of Office: News", body: "I will be back on Monday.\n", kind: "auto_reply", code: "60"},
	{name: "absent, French", header: "From: ann@corp.example.net\nSubject: Réponse automatique : News", body: "x\n", kind: "auto_reply"},
	{name: "absent, German", header: "From: ann@corp.example.net\nSubject: Abwesenheitsnotiz: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Spanish", header: "From: ann@corp.example.net\nSubject: Respuesta automática: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Portuguese", header: "From: ann@corp.example.net\nSubject: Resposta automática: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Italian", header: "From: ann@corp.example.net\nSubject: Risposta automatica: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Dutch", header: "From: ann@corp.example.net\nSubject: Automatisch antwoord: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Polish", header: "From: ann@corp.example.net\nSubject: Odpowiedź automatyczna: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Russian", header: "From: ann@corp.example.net\nSubject: Автоматический ответ: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Japanese", header: "From: ann@corp.example.net\nSubject: 自動返信: News", body: "x\n", kind: "auto_reply"},
	{name: "absent, Chinese", header: "From: ann@corp.example.net\nSubject: 自动回复: News", body: "x\n", kind: "auto_reply"},
	{name: "autoresponder of a desk", header: "From: help@corp.example.net\nSubject: [#1234] We received your request\nX-Autoreply: yes", body: "Thank you.\n", kind: "auto_reply"},
	{
		name: "TMDA", header: "From: ann-confirm-1234@corp.example.net\nSubject: Please confirm your message\nDelivery-Agent: TMDA/1.0.3\nAuto-Submitted: auto-replied",
		body: "This message was created automatically. To release your message for delivery, please reply to this message so that it is delivered.\n",
		kind: "challenge", code: "100",
	},
	{
		name: "Spam Arrest", header: "From: Ann <ann@corp.example.net>\nSubject: Re: News (verification required)\nReturn-Path: <>",
		body: "I'm protecting myself from receiving junk mail. Just once, click the link below so I can receive your emails: please click here to verify that you are human and your message will be delivered.\nhttps://spamarrest.example/a2?x\n",
		kind: "challenge", code: "100",
	},
	{
		name: "MailInBlack", header: "From: ann@corp.example.net\nSubject: Demande d'authentification\nAuto-Submitted: auto-replied",
		body: "Cliquez sur le lien pour que votre message soit remis.\n",
		kind: "challenge",
	},
	{name: "unsubscribe by mailto", header: "From: Ann <ann@corp.example.net>\nSubject: unsubscribe", body: "\n", kind: "unsubscribe", recipient: "ann@corp.example.net", code: "90"},
	{name: "unsubscribe by Apple Mail", header: "From: ann@icloud.com\nSubject: Unsubscribe\nX-Apple-Unsubscribe: true", body: "unsubscribe\n", kind: "unsubscribe", recipient: "ann@icloud.com"},
	{name: "unsubscribe by Gmail", header: "From: ann@gmail.com\nTo: unsubscribe+abc@sender.example\nSubject: unsub", body: "This message was automatically generated by Gmail.\n", kind: "unsubscribe"},
	{name: "unsubscribe, German", header: "From: ann@corp.example.net\nSubject: Abmelden", body: "\n", kind: "unsubscribe"},
	{name: "unsubscribe, Russian", header: "From: ann@corp.example.net\nSubject: Отписаться", body: "\n", kind: "unsubscribe"},
	{name: "a letter", header: "From: Ann <ann@corp.example.net>\nSubject: Re: News\nIn-Reply-To: <x@sender.example>", body: "Dear all,\n\nthank you for the news. Your last mail could not be delivered to my brother, by the way; his address is bob@corp.example.net.\n", kind: "other"},
	{name: "a newsletter", header: "From: News <news@shop.example>\nSubject: Failure is not an option: our delivery week\nList-Unsubscribe: <https://shop.example/u>", body: "Free delivery this week. Write to support@shop.example. To unsubscribe click here.\n", kind: "other"},
	{
		name: "a receipt", header: "From: ann@corp.example.net\nSubject: Read: News\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b",
		body: "--b\nContent-Type: text/plain\n\nYour message was read.\n\n--b\nContent-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; ann@corp.example.net\nDisposition: manual-action/MDN-sent-manually; displayed\n\n--b--\n",
		kind: "other",
	},
	{
		name: "an aggregate report", header: "From: noreply-dmarc-support@google.com\nSubject: Report domain: sender.example Submitter: google.com Report-ID: 1\nContent-Type: application/zip; name=x.zip\nContent-Transfer-Encoding: base64",
		body: "UEsDBAo=\n", kind: "other",
	},
	{name: "nothing at all", header: "X: y", body: "", kind: "other"},
}

func TestFormsOfOtherMail(t *testing.T) {
	for _, c := range otherForms {
		t.Run(c.name, c.check)
	}
}
