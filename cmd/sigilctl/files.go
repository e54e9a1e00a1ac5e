package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"github.com/spf13/cobra"
)

// How verbs read what somebody hands over: never more than they can need.

// maxSmall bounds a file that is small, in bytes.
const maxSmall = 1 << 20

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("reading %s: more than %d bytes", path, limit)
	}
	return b, err
}

// readIdentity reads an age identity file.
func readIdentity(path string) ([]age.Identity, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading an identity: %w", err)
	}
	defer in.Close()
	ids, err := age.ParseIdentities(io.LimitReader(in, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("reading an identity: %s is no age identity file", path) // its text could be secret
	}
	return ids, nil
}

// openAge decrypts an age file that holds less than limit bytes; the caller wipes
// the result.
func openAge(path, identity string, limit int) ([]byte, error) {
	ids, err := readIdentity(identity)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := age.Decrypt(file, ids...)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	b := make([]byte, limit)
	n, err := io.ReadFull(r, b)
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(b)
		if err == nil {
			err = fmt.Errorf("more than %d bytes", limit-1)
		}
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return b[:n], nil
}

// need marks flags without which a verb makes no sense.
func need(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
}
