package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// followEvery is how often tail --follow looks for more.
const followEvery = time.Second / 2

func auditTailCommand() *cobra.Command {
	var db, socket string
	var lines int
	var follow, offline bool
	c := &cobra.Command{
		Use:   "tail",
		Short: "Print the journal's last entries, one JSON object a line; with --follow also those that come",
		Long: `Prints the journal's last entries. A running daemon that knows this uid as an auditor is
asked on its admin socket: it authenticates each entry, and that they continue one
another is checked here. Else, and with --db or --offline, the file is read and the
whole journal verified before any of it is shown.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if lines < 0 {
				return errors.New("--lines must not be negative")
			}
			tail := tailer{out: json.NewEncoder(cmd.OutOrStdout()), lines: lines, follow: follow}
			if db == "" && !offline {
				asked, err := tail.fromDaemon(ctx, cmd, socket)
				if asked || err != nil {
					return stopped(err)
				}
			}
			path, err := database(cmd, db)
			if err != nil {
				return err
			}
			return stopped(tail.fromFile(ctx, path))
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	c.Flags().StringVar(&socket, "socket", "", "the admin `socket`; default: the configuration's")
	c.Flags().BoolVar(&offline, "offline", false, "read the file, also where a daemon would answer")
	c.Flags().IntVarP(&lines, "lines", "n", 10, "how many of the entries that are there")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	return c
}

// stopped takes being told to stop for an end.
func stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tailer prints entries.
type tailer struct {
	out    *json.Encoder
	lines  int
	follow bool
}

// fromFile verifies what is there as a whole before any of it is shown.
func (t tailer) fromFile(ctx context.Context, path string) error {
	var last []journal.Entry
	r, err := journal.Walk(ctx, path, nil, func(e journal.Entry) error {
		if last = append(last, e); len(last) > t.lines {
			last = last[1:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range last {
		if err := t.out.Encode(e); err != nil {
			return err
		}
	}
	if !t.follow {
		return nil
	}
	return journal.Follow(ctx, path, r.CheckpointKey, followEvery, func(e journal.Entry) error {
		if e.Seq <= r.Entries {
			return nil
		}
		return t.out.Encode(e)
	})
}

// fromDaemon asks a running daemon; asked is false when there is none, it is sealed, or
// it doesn't know us as an auditor.
func (t tailer) fromDaemon(ctx context.Context, cmd *cobra.Command, socket string) (asked bool, err error) {
	named := socket != ""
	if !named {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return false, err
		}
		socket = cfg.Sockets.Admin.Path
	}
	conn, err := client.Dial(socket)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	page, err := readJournal(ctx, conn, 0, 1)
	if err != nil {
		if named {
			return true, unreachable(socket, err)
		}
		return false, nil
	}
	var links journal.Links
	from := uint64(1)
	if n := uint64(t.lines); page.GetLastSequence() >= n {
		from = page.GetLastSequence() - n + 1
	}
	for {
		page, err := readJournal(ctx, conn, from, journal.MaxPage)
		if err != nil {
			return true, unreachable(socket, err)
		}
		for _, row := range page.GetEntries() {
			if err := t.show(&links, row); err != nil {
				return true, err
			}
			from = row.GetSequence() + 1
		}
		if len(page.GetEntries()) > 0 && from <= page.GetLastSequence() {
			continue
		}
		if !t.follow {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-time.After(followEvery):
		}
	}
}

func (t tailer) show(links *journal.Links, row *sigilv1.JournalEntry) error {
	r := vault.JournalRow{Seq: row.GetSequence(), Body: row.GetBody()}
	if copy(r.Hash[:], row.GetHash()) != len(row.GetHash()) || copy(r.MAC[:], row.GetMac()) != len(row.GetMac()) {
		return fmt.Errorf("reading entry %d: %w", r.Seq, io.ErrUnexpectedEOF)
	}
	e, err := links.Next(r)
	if err != nil {
		return err
	}
	return t.out.Encode(e)
}

func readJournal(ctx context.Context, conn *client.Client, from uint64, limit uint32) (*sigilv1.ReadJournalResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return conn.Audit().ReadJournal(ctx, &sigilv1.ReadJournalRequest{From: from, Limit: limit})
}
