package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// uploadPiece is how much of a file goes in one request, in octets.
const uploadPiece = 256 << 10

const formatUsage = `csv, ses (Amazon SES) or sparkpost`

// fileFormat reads a format's name.
func fileFormat(cmd *cobra.Command, name string) (veredusv1.AddressFileFormat, error) {
	format, err := optionalEnum(veredusv1.AddressFileFormat_value, "ADDRESS_FILE_FORMAT_", name)
	if err != nil {
		return 0, &usageError{cmd, prefixed("--format", err)}
	}
	return veredusv1.AddressFileFormat(format), nil
}

// guessFormat tells by the beginning of a file whose it is.
func guessFormat(head []byte) veredusv1.AddressFileFormat {
	text := strings.ToLower(string(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))))
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	fields := strings.Split(strings.ReplaceAll(strings.TrimSpace(first), `"`, ""), ",")
	switch object := strings.HasPrefix(first, "{") || strings.HasPrefix(first, "["); {
	case object && strings.Contains(text, `"emailaddress"`), object && strings.Contains(text, `"suppresseddestinationsummaries"`):
		return veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES
	case object, fields[0] == "recipient":
		return veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SPARKPOST
	case len(fields) > 1 && strings.Contains(fields[0], "@") && slices.Contains([]string{"bounce", "complaint"}, strings.TrimSpace(fields[1])):
		return veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_SES
	}
	return veredusv1.AddressFileFormat_ADDRESS_FILE_FORMAT_CSV
}

const importHelp = `Import entries. FILE is a file, or "-" for standard input:

  csv        our own export, or any CSV with a header and a column "address" (or "email"), or a bare
             list of addresses. Columns: address, status (denylisted where it is missing), tenant ("*" for
             all), mail_class, list_id, reason, origin, comment, error_count, provisional, create_time,
             update_time
  ses        Amazon SES: the JSON of 'aws sesv2 list-suppressed-destinations', or the JSON lines or CSV
             of a suppression list job; BOUNCE is quarantined, COMPLAINT denylisted
  sparkpost  SparkPost: the CSV or JSON of a suppression list; a bounce is quarantined, the rest
             denylisted, non_transactional for marketing mail

--tenant, --class and --list are the scope of entries whose line names none. An allowlist
entry stays, and so does a denylist entry where the file says quarantined. Importing a file
again changes nothing. Malformed lines are told and left out; then the exit status is 1.`

func newAddressesImport() *cobra.Command {
	a, scope, name, dry := &addresses{}, scopeFlags{}, "", false
	cmd := a.with(&cobra.Command{
		Use:   "import FILE",
		Short: "Import entries from CSV or from another product's suppression list",
		Long:  importHelp,
		Example: `  veredus addresses import quarantine.csv --dry-run
  aws sesv2 list-suppressed-destinations | veredus addresses import - --format ses --tenant acme`,
		Args: exactArgs("the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := fileFormat(cmd, name)
			if err != nil {
				return err
			}
			where, err := scope.read(cmd)
			if err != nil {
				return err
			}
			in, err := openInput(cmd, args[0])
			if err != nil {
				return &usageError{cmd, err}
			}
			defer func() { _ = in.Close() }()
			file := bufio.NewReaderSize(in, uploadPiece)
			if head, _ := file.Peek(4 << 10); format == 0 {
				format = guessFormat(head)
			}
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				answer, err := upload(cmd.Context(), c, &veredusv1.ImportAddressEntriesRequest{Format: format, Scope: where, DryRun: dry}, file)
				if err != nil {
					return err
				}
				return a.imported(cmd, answer, dry)
			})
		},
	}, "print the answer as JSON")
	scope.flags(cmd)
	cmd.Flags().StringVar(&name, "format", "", formatUsage+" (default: by the beginning of the file)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check only, and change nothing")
	return cmd
}

func openInput(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	return os.Open(name)
}

// upload sends a file in pieces.
func upload(ctx context.Context, c veredusv1.AddressServiceClient, first *veredusv1.ImportAddressEntriesRequest, in io.Reader) (*veredusv1.ImportAddressEntriesResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.ImportAddressEntries(ctx)
	if err != nil {
		return nil, err
	}
	req, piece := first, make([]byte, uploadPiece)
	for {
		n, err := in.Read(piece)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		req.Data = piece[:n]
		if n > 0 || req == first {
			if stream.Send(req) != nil {
				break // the answer says why
			}
		}
		if err != nil {
			break
		}
		req = &veredusv1.ImportAddressEntriesRequest{}
	}
	return stream.CloseAndRecv()
}

// imported reports an import; malformed lines make it fail.
func (a *addresses) imported(cmd *cobra.Command, answer *veredusv1.ImportAddressEntriesResponse, dry bool) error {
	if a.json {
		if err := printProto(a.out, answer); err != nil {
			return err
		}
	} else {
		verb := "imported"
		if dry {
			verb = "would be imported"
		}
		fmt.Fprintf(a.out, "%s entries %s, of which %s replaced another; %s were kept as they are\n",
			thousands(answer.GetImported()), verb, thousands(answer.GetReplaced()), thousands(answer.GetKept()))
	}
	if answer.GetMalformed() == 0 {
		return nil
	}
	for _, l := range answer.GetLines() {
		fmt.Fprintf(cmd.ErrOrStderr(), "line %d %s\n", l.GetLine(), oneLine(l.GetDescription()))
	}
	return &exitError{exitFailed, fmt.Errorf("%s lines were malformed and left out", thousands(answer.GetMalformed()))}
}

func newAddressesExport() *cobra.Command {
	a, filter, name, output := &addresses{}, filterFlags{}, "", ""
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export entries as CSV or as another product's suppression list",
		Long: `Export entries as a file that 'veredus addresses import' reads.

The CSV has every entry; cells that a spreadsheet would run as a formula begin with an
apostrophe, which the import takes away again. Files for Amazon SES and SparkPost have
quarantined and denylisted entries only, without provisional ones; SES has one list for
all mail, so unsubscribes from one list are not in it.`,
		Example: `  veredus addresses export --output addresses.csv
  veredus addresses export --format sparkpost --tenant acme > suppressions.csv`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, err := fileFormat(cmd, name)
			if err != nil {
				return err
			}
			f, err := filter.read(cmd, time.Now())
			if err != nil {
				return err
			}
			return a.call(cmd, func(c veredusv1.AddressServiceClient) error {
				req := &veredusv1.ExportAddressEntriesRequest{Filter: f, Format: format}
				if output == "" {
					return download(cmd.Context(), c, req, a.out)
				}
				return downloadFile(cmd.Context(), c, req, output)
			})
		},
	}
	a.flags(cmd)
	filter.wide(cmd)
	cmd.Flags().StringVar(&name, "format", "", formatUsage+` (default "csv")`)
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, which is whole or not there (default: standard output)")
	return cmd
}

// download writes an export.
func download(ctx context.Context, c veredusv1.AddressServiceClient, req *veredusv1.ExportAddressEntriesRequest, out io.Writer) error {
	stream, err := c.ExportAddressEntries(ctx, req)
	if err != nil {
		return err
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := out.Write(piece.GetData()); err != nil {
			return err
		}
	}
}

// downloadFile writes an export to a file beside its place first, so that nobody takes half of it for all.
func downloadFile(ctx context.Context, c veredusv1.AddressServiceClient, req *veredusv1.ExportAddressEntriesRequest, name string) error {
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".part-*")
	if err != nil {
		return err
	}
	err = errors.Join(download(ctx, c, req, file), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
