package airgap

import (
	"bytes"
	"fmt"
	"strings"
)

// A message comes as a file of CBOR, as text with resources, or as pictures of QR
// codes; what it is, it says itself.

// ReadMessage puts one message together from the contents of files in any order:
// one file of CBOR, or files of text with one resource a line, or PNG pictures with
// one QR code each. Errors wrap [ErrForm]; parts that are missing are told by number.
func ReadMessage(files ...[]byte) (UR, error) {
	if len(files) == 1 && len(files[0]) > 0 && files[0][0]>>5 == 5 { // a CBOR map
		return bare(files[0])
	}
	var c Collector
	for _, b := range files {
		lines := []string{}
		if bytes.HasPrefix(b, pngMagic) {
			text, err := ReadQR(b)
			if err != nil {
				return UR{}, err
			}
			lines = append(lines, text)
		} else if len(b) > 4*MaxMessage {
			return UR{}, fmt.Errorf("reading a message: %w: %d bytes of text", ErrForm, len(b))
		} else {
			lines = append(lines, strings.Fields(string(b))...)
		}
		for _, line := range lines {
			if err := c.Add(line); err != nil {
				return UR{}, err
			}
		}
	}
	u, whole, err := c.Message()
	if err != nil {
		return UR{}, err
	}
	if !whole {
		have, need := c.Progress()
		return UR{}, fmt.Errorf("reading a message: %w: %d of %d parts are there", ErrForm, have, need)
	}
	return u, nil
}

// bare finds out what a file of CBOR is.
func bare(b []byte) (UR, error) {
	if _, err := ParseAnswer(b); err == nil {
		return UR{Type: typeAnswer, CBOR: b}, nil
	}
	if _, err := ParseRequest(b); err != nil {
		return UR{}, err
	}
	return UR{Type: typeRequest, CBOR: b}, nil
}

// RequestOf reads the request in a message: ours, an eth-sign-request or a
// sol-sign-request. Errors wrap [ErrForm].
func RequestOf(u UR) (*Request, error) {
	switch u.Type {
	case typeRequest:
		return ParseRequest(u.CBOR)
	case typeETHRequest:
		return parseETHRequest(u.CBOR)
	case typeSOLRequest:
		return parseSOLRequest(u.CBOR)
	}
	return nil, fmt.Errorf("reading the request: %w: a message of type %s", ErrForm, u.Type)
}

// Message is the request as it travels: ours as we encoded it, a wallet's as it came.
func (r *Request) Message() UR {
	return UR{Type: map[form]string{formOurs: typeRequest, formERC4527: typeETHRequest, formSolana: typeSOLRequest}[r.made], CBOR: r.raw}
}
