package decode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sigild/sigild/chains"
)

// maxLine is the longest row that is read, in bytes; a longer one is refused
// and skipped.
const maxLine = 32 << 20

// charge is a [chains.Charge] as a row says it.
type charge struct {
	Chain     string `json:"chain"`
	Asset     string `json:"asset"`
	Amount    string `json:"amount,omitempty"` // absent when unbounded
	Unbounded bool   `json:"unbounded,omitempty"`
	What      string `json:"what"`
	To        string `json:"to,omitempty"`
}

// answer is the row that a good row gets.
type answer struct {
	ID           json.RawMessage `json:"id"`
	OK           bool            `json:"ok"`
	Kind         chains.Kind     `json:"kind"`
	SigningHash  string          `json:"signing_hash,omitempty"`
	SigningBytes string          `json:"signing_bytes,omitempty"`
	View         json.RawMessage `json:"view"`
	Charges      []charge        `json:"charges"`
	ReplayKeys   []string        `json:"replay_keys,omitempty"`
	Guards       []string        `json:"guards,omitempty"`
	Summary      string          `json:"summary"`
	Opaque       bool            `json:"opaque,omitempty"`
}

// refusal is the row that a bad row gets.
type refusal struct {
	ID    json.RawMessage `json:"id"`
	OK    bool            `json:"ok"`
	Error rowError        `json:"error"`
}

type rowError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Offset  int    `json:"offset"` // -1 where there is none
}

// Lines answers every payload of in, one a row, with one row to out; see [Lines].
func (k Kind) Lines(in io.Reader, out io.Writer) error {
	return Lines(in, out, k.answer, func(err error) any { return refused(nil, err) })
}

// Lines answers every row of in with one row to out, in order, until in ends.
// Empty lines are skipped. It stops only when in can't be read or out not
// written. Answers are flushed whenever no further row is waiting. refuse answers
// a row that is too long to be read.
func Lines(in io.Reader, out io.Writer, answer func(line []byte) any, refuse func(error) any) error {
	r := bufio.NewReaderSize(in, 1<<16)
	w := bufio.NewWriterSize(out, 1<<16)
	var line []byte
	for {
		var tooLong bool
		var err error
		line, tooLong, err = readLine(r, line[:0])
		if err != nil && err != io.EOF {
			return errors.Join(fmt.Errorf("reading rows: %w", err), w.Flush())
		}
		switch {
		case tooLong:
			writeRow(w, refuse(Malformed(maxLine, "a row of more than %d bytes", maxLine)))
		case len(bytes.TrimSpace(line)) > 0:
			writeRow(w, answer(line))
		}
		if err == io.EOF || r.Buffered() == 0 {
			if e := w.Flush(); e != nil {
				return fmt.Errorf("writing rows: %w", e)
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine appends the next line to buf, without its end. A line beyond maxLine
// is read to its end and not kept.
func readLine(r *bufio.Reader, buf []byte) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if tooLong = tooLong || len(buf)+len(part) > maxLine; !tooLong {
			buf = append(buf, part...)
		}
		if err != bufio.ErrBufferFull {
			return bytes.TrimSuffix(buf, []byte{'\n'}), tooLong, err
		}
	}
}

// answer decodes one line and says what came of it.
func (k Kind) answer(line []byte) any {
	row, err := ParseRow(line)
	id := row["id"]
	if err != nil {
		return refused(id, err)
	}
	d, err := k.Run(row)
	if err != nil {
		return refused(id, err)
	}
	a := answer{ID: id, OK: true, Kind: d.Kind, View: viewJSON(d.View, k.Roots), Charges: []charge{},
		ReplayKeys: d.ReplayKeys, Guards: d.Guards, Summary: d.Summary, Opaque: d.Opaque}
	for _, c := range d.Charges {
		out := charge{Chain: c.Chain, Asset: c.Asset, Unbounded: c.Unbounded, What: c.What, To: c.To}
		if !c.Unbounded {
			out.Amount = c.Amount.Dec()
		}
		a.Charges = append(a.Charges, out)
	}
	switch name, value := signed(d); name {
	case "signing_hash":
		a.SigningHash = value
	default:
		a.SigningBytes = value
	}
	return a
}

func refused(id json.RawMessage, err error) refusal {
	de := AsError(err)
	return refusal{ID: id, Error: rowError{Code: de.Code, Message: de.Message, Offset: de.Offset}}
}

// writeRow writes one row and its end; bufio keeps the first error for Flush.
func writeRow(w *bufio.Writer, row any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(row); err != nil {
		// Only writing can fail: every raw part was parsed or made here. Flush says so again.
		fmt.Fprintf(w, "%s\n", `{"id":null,"ok":false,"error":{"code":"internal","message":"the answer could not be written","offset":-1}}`)
	}
}
