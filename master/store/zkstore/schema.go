package zkstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"starling/master/store"
)

// What lies below the path of the client's URL, beside the nodes of an election, which take no notice of it:
//
//	starling/head                 head as JSON: the count of transactions, and one that is being carried out
//	starling/documents/<key>      a document: "1", a blank, its version in decimal, a line feed, its data; the key is escaped as
//	                              in URLs, slashes included
//	starling/staged/<id>_<n>      part n of a large transaction, from 0: see package comment; encodeOps says how
//
// History of the format: 1, 2026-11, first version.
const (
	format = 1

	dirRoot      = "starling"
	nodeHead     = dirRoot + "/head"
	dirDocuments = dirRoot + "/documents"
	dirStaged    = dirRoot + "/staged"
)

// head is what every transaction changes, on condition that nobody else did meanwhile.
type head struct {
	Format int `json:"format"`
	// Version is that of the last transaction, and of the documents that it wrote.
	Version uint64 `json:"version"`
	// Last is the id of the last transaction: whoever lost the answer finds out by it whether it was done.
	Last string `json:"last,omitempty"`
	// Pending is set while the last transaction lies in stages, and must be carried out before anything is read or written.
	Pending *pending `json:"pending,omitempty"`
}

type pending struct {
	ID    string `json:"id"`
	Parts int    `json:"parts"`
}

func decodeHead(data []byte) (head, error) {
	var h head
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("node %q is damaged: %w", nodeHead, err)
	}
	if h.Format != format {
		return h, fmt.Errorf("node %q has format %d, known is %d", nodeHead, h.Format, format)
	}
	if h.Version >= math.MaxUint64-1 {
		return h, fmt.Errorf("node %q is damaged: there is no version above %d", nodeHead, h.Version)
	}
	return h, nil
}

// docNode is the node of a document.
func docNode(key string) string { return dirDocuments + "/" + url.PathEscape(key) }

// docKey is the key of a child of dirDocuments; it is none of ours where ok is false.
func docKey(name string) (key string, ok bool) {
	key, err := url.PathUnescape(name)
	return key, err == nil && url.PathEscape(key) == name && store.CheckKey(key) == nil
}

func stagedNode(id string, part int) string { return fmt.Sprintf("%s/%s_%d", dirStaged, id, part) }

// encodeDoc returns what the node of a document holds, in bytes of its own.
func encodeDoc(version uint64, data []byte) []byte {
	out := make([]byte, 0, len(data)+24)
	out = strconv.AppendInt(out, format, 10)
	out = append(out, ' ')
	out = strconv.AppendUint(out, version, 10)
	out = append(out, '\n')
	return append(out, data...)
}

// decodeDoc is encodeDoc the other way round; the data it returns is part of what it was given.
func decodeDoc(node []byte) (version uint64, data []byte, err error) {
	line, data, ok := bytes.Cut(node, []byte("\n"))
	known, digits, spaced := strings.Cut(string(line[:min(len(line), 64)]), " ")
	if !ok || !spaced {
		return 0, nil, errors.New("it has no version")
	}
	if known != strconv.Itoa(format) {
		return 0, nil, fmt.Errorf("format %q is not known", known)
	}
	version, err = strconv.ParseUint(digits, 10, 64)
	if err != nil || version == 0 || version == store.Any || digits[0] == '+' {
		return 0, nil, fmt.Errorf("version %q is none", digits)
	}
	return version, data, nil
}

// encodeOps writes operations one after the other: a byte that is 1 for a delete, and key and data, each behind its length as
// a varint.
func encodeOps(ops []store.Op) []byte {
	var out []byte
	for _, op := range ops {
		if op.Delete {
			out = append(out, 1)
			op.Data = nil
		} else {
			out = append(out, 0)
		}
		out = binary.AppendUvarint(out, uint64(len(op.Key)))
		out = append(out, op.Key...)
		out = binary.AppendUvarint(out, uint64(len(op.Data)))
		out = append(out, op.Data...)
	}
	return out
}

// decodeOps is encodeOps the other way round; the operations have no conditions, as those held already.
func decodeOps(data []byte) ([]store.Op, error) {
	var ops []store.Op
	field := func() []byte {
		n, size := binary.Uvarint(data)
		if size <= 0 || n > uint64(len(data)-size) {
			data = nil
			return nil
		}
		value := data[size : size+int(n)]
		data = data[size+int(n):]
		return value
	}
	for len(data) > 0 {
		op := store.Op{Version: store.Any, Delete: data[0] == 1}
		if data[0] > 1 {
			return nil, errors.New("an operation of no known kind")
		}
		data = data[1:]
		op.Key = string(field())
		op.Data = field()
		if op.Data == nil {
			return nil, errors.New("it is cut off")
		}
		ops = append(ops, op)
	}
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	return ops, nil
}
