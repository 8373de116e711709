package kconf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Write renders a .properties file: sorted, ASCII only, escaped so that java.util.Properties (which Kafka uses, and which reads
// bytes as ISO 8859-1) reads exactly these keys and values back. Bytes that are not UTF-8 become U+FFFD.
func Write(config map[string]string) []byte {
	var b bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(config)) {
		escape(&b, key, true)
		b.WriteByte('=')
		escape(&b, config[key], false)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// escape writes one key or value. A blank needs its backslash everywhere in a key, but only in front of a value.
func escape(b *bytes.Buffer, s string, key bool) {
	for i, r := range s {
		switch r {
		case ' ':
			if key || i == 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(' ')
		case '\t':
			b.WriteString(`\t`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\f':
			b.WriteString(`\f`)
		case '\\', '=', ':', '#', '!':
			if key || r == '\\' || i == 0 {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		default:
			escapeRune(b, r)
		}
	}
}

func escapeRune(b *bytes.Buffer, r rune) {
	if r >= ' ' && r <= '~' {
		b.WriteRune(r)
		return
	}
	for _, unit := range utf16.AppendRune(nil, r) {
		fmt.Fprintf(b, `\u%04X`, unit)
	}
}

// Parse reads a .properties file as java.util.Properties does: comments, continued lines, the three separators, escapes, ISO 8859-1.
// A key that stands twice has its last value. A malformed \u escape is an error, as in Java. A half of a surrogate pair, which no
// Go string can hold, becomes U+FFFD.
func Parse(content []byte) (map[string]string, error) {
	config := map[string]string{}
	lines := &lines{rest: content, number: 1}
	for {
		line, number, ok := lines.next()
		if !ok {
			return config, nil
		}
		key, value := splitLine(line)
		k, err := unescape(key)
		if err != nil {
			return nil, fmt.Errorf("line %d: read the key: %w", number, err)
		}
		v, err := unescape(value)
		if err != nil {
			return nil, fmt.Errorf("line %d: read the value of %s: %w", number, k, err)
		}
		config[k] = v
	}
}

// lines yields logical lines: no comments, no blank lines, continued lines joined.
type lines struct {
	rest   []byte
	number int
}

func (l *lines) next() (line []byte, number int, ok bool) {
	for len(l.rest) > 0 {
		number = l.number
		natural := l.natural()
		if len(natural) == 0 || natural[0] == '#' || natural[0] == '!' {
			continue
		}
		for continued(natural) {
			natural = natural[:len(natural)-1]
			line = append(line, natural...)
			natural = l.natural()
		}
		if line = append(line, natural...); len(line) > 0 {
			return line, number, true
		}
	}
	return nil, 0, false
}

// natural takes the next line of the file, without its end and its leading blanks.
func (l *lines) natural() []byte {
	end := bytes.IndexAny(l.rest, "\r\n")
	var line []byte
	switch {
	case end < 0:
		line, l.rest = l.rest, nil
	case bytes.HasPrefix(l.rest[end:], []byte("\r\n")):
		line, l.rest = l.rest[:end], l.rest[end+2:]
	default:
		line, l.rest = l.rest[:end], l.rest[end+1:]
	}
	l.number++
	return bytes.TrimLeft(line, " \t\f")
}

// continued reports whether the line ends in an odd number of backslashes.
func continued(line []byte) bool {
	return (len(line)-len(bytes.TrimRight(line, `\`)))%2 == 1
}

// splitLine cuts at the first unescaped separator: blanks, or one of = and : with blanks around it.
func splitLine(line []byte) (key, value []byte) {
	end := 0
	for end < len(line) && !strings.ContainsRune(" \t\f=:", rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	value = bytes.TrimLeft(line[end:], " \t\f")
	if len(value) > 0 && (value[0] == '=' || value[0] == ':') {
		value = bytes.TrimLeft(value[1:], " \t\f")
	}
	return line[:end], value
}

// unescape decodes ISO 8859-1 with Java's escapes. A backslash before anything else stands for nothing.
func unescape(s []byte) (string, error) {
	units := make([]uint16, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\\' || i+1 == len(s) {
			if c != '\\' {
				units = append(units, uint16(c))
			}
			continue
		}
		i++
		switch s[i] {
		case 't':
			units = append(units, '\t')
		case 'n':
			units = append(units, '\n')
		case 'r':
			units = append(units, '\r')
		case 'f':
			units = append(units, '\f')
		case 'u':
			unit, err := hexUnit(s[i+1:])
			if err != nil {
				return "", err
			}
			units = append(units, unit)
			i += 4
		default:
			units = append(units, uint16(s[i]))
		}
	}
	return string(utf16.Decode(units)), nil
}

func hexUnit(s []byte) (uint16, error) {
	if len(s) < 4 || !utf8.Valid(s[:4]) {
		return 0, fmt.Errorf(`malformed \u escape: four hexadecimal digits must follow`)
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 16)
	if err != nil {
		return 0, fmt.Errorf(`malformed \u escape %q: four hexadecimal digits must follow`, s[:4])
	}
	return uint16(n), nil
}
