package serve_test

import (
	"context"
	"fmt"
	"net"
	"net/smtp"
	"strconv"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
)

// A sender under test is given w.DNSAddr and w.SMTPPort; here it is net/smtp,
// which is told the address instead.
func ExampleStart() {
	data := world.Default()
	data.Receiver("yahoo").TLS = world.TLSOff // net/smtp would not trust the certificate
	w, err := serve.Start(context.Background(), serve.Config{World: data})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()

	addr := net.JoinHostPort("127.77.2.1", strconv.Itoa(w.SMTPPort())) // the first host of the second receiver
	for _, to := range []string{"ok+1@yahoo.example", "unknown@yahoo.example"} {
		mail := "From: a@sender.example\r\nMessage-ID: <1@sender.example>\r\n\r\nHello.\r\n"
		fmt.Println(to, smtp.SendMail(addr, nil, "a@sender.example", []string{to}, []byte(mail)) == nil)
	}
	ledger := w.Ledger()
	fmt.Println("accepted", ledger.Messages, "refused", ledger.Refused)
	// Output:
	// ok+1@yahoo.example true
	// unknown@yahoo.example false
	// accepted 1 refused 1
}
