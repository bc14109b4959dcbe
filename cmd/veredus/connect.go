package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/veredus/veredus/proto/client"
	"github.com/veredus/veredus/server/config"
)

// node is where a command finds its node.
type node struct {
	addr      string
	ca        string
	tls       bool
	plaintext bool
}

// flags adds the flags of every command that talks to a node.
func (n *node) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.addr, "addr", config.DefaultGRPCListen, "gRPC address of the node, host:port")
	f.BoolVar(&n.tls, "tls", false, "use TLS also on loopback")
	f.StringVar(&n.ca, "ca", "", "PEM file of the certificate authority to trust (implies --tls)")
	f.BoolVar(&n.plaintext, "plaintext", false, "do not use TLS beyond loopback")
}

// dial connects. The first call finds out whether a node is there.
func (n *node) dial(cmd *cobra.Command) (*grpc.ClientConn, error) {
	var options []grpc.DialOption
	switch {
	case n.plaintext && (n.tls || n.ca != ""):
		return nil, usagef(cmd, "--plaintext contradicts --tls and --ca; use one of them")
	case n.plaintext:
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	case n.tls || n.ca != "":
		settings, err := n.trust()
		if err != nil {
			return nil, &usageError{cmd, err}
		}
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(settings)))
	}
	conn, err := client.Dial(n.addr, options...)
	if err != nil {
		return nil, &usageError{cmd, fmt.Errorf("--addr: %w", err)}
	}
	return conn, nil
}

func (n *node) trust() (*tls.Config, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if n.ca == "" {
		return settings, nil
	}
	pem, err := os.ReadFile(n.ca)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	settings.RootCAs = x509.NewCertPool()
	if !settings.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca: %s holds no certificate in PEM", n.ca)
	}
	return settings, nil
}

// explain adds to an error of a call what to do when no node answers.
func (n *node) explain(err error) error {
	if status.Code(err) != codes.Unavailable {
		return err
	}
	return fmt.Errorf("no node answers at %s: %s\nStart one with 'veredus serve', or name another with --addr", n.addr, status.Convert(err).Message())
}
