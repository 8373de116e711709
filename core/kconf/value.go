package kconf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ValidateValue checks a value as Kafka parses it: trimmed, then by type, then by the key's validator. A value with a
// ${provider:…} reference is resolved on the node and passes.
func ValidateValue(k Key, value string) []Problem {
	if indirect(value) {
		return nil
	}
	v := strings.TrimFunc(value, blank)
	var reason string
	switch k.Type {
	case Boolean:
		reason = booleanReason(v)
	case Int:
		reason = integerReason(v, 32, k.Valid)
	case Short:
		reason = integerReason(v, 16, k.Valid)
	case Long:
		reason = integerReason(v, 64, k.Valid)
	case Double:
		reason = doubleReason(v, k.Valid)
	case List:
		reason = listReason(elements(v), k.Valid)
	default:
		reason = stringReason(v, k)
	}
	if reason == "" {
		return nil
	}
	p := Problem{Error, fmt.Sprintf("%s: %q %s", k.Name, value, reason), ""}
	if accepts := k.Valid.String(); accepts != "" {
		p.Remedy = "accepted: " + accepts
	} else if k.Type == Boolean {
		p.Remedy = "accepted: true, false"
	}
	return []Problem{p}
}

// blank is what Java's String.trim takes away.
func blank(r rune) bool { return r <= ' ' }

// indirect reports whether a config provider supplies the value or a part of it.
func indirect(value string) bool {
	_, rest, ok := strings.Cut(value, "${")
	name, rest, colon := strings.Cut(rest, ":")
	return ok && colon && name != "" && strings.Contains(rest, "}") && !strings.ContainsAny(name, "}$ ")
}

// elements splits a list as Kafka does: at commas, blanks around them dropped.
func elements(v string) []string {
	if v == "" {
		return nil
	}
	parts := strings.Split(v, ",")
	for i := range parts {
		parts[i] = strings.TrimFunc(parts[i], blank)
	}
	return parts
}

func booleanReason(v string) string {
	if strings.EqualFold(v, "true") || strings.EqualFold(v, "false") {
		return ""
	}
	return "is not a boolean"
}

func integerReason(v string, bits int, valid Valid) string {
	n, err := strconv.ParseInt(v, 10, bits)
	if err != nil {
		return fmt.Sprintf("is not a whole number of %d bits", bits)
	}
	if valid.Or != "" && strconv.FormatInt(n, 10) == valid.Or {
		return ""
	}
	if bound, err := strconv.ParseInt(valid.Min, 10, 64); err == nil && n < bound {
		return "is too small"
	}
	if bound, err := strconv.ParseInt(valid.Max, 10, 64); err == nil && n > bound {
		return "is too large"
	}
	return ""
}

func doubleReason(v string, valid Valid) string {
	n, err := parseDouble(v)
	if err != nil {
		return "is not a number"
	}
	if bound, err := strconv.ParseFloat(valid.Min, 64); err == nil && n < bound {
		return "is too small"
	}
	if bound, err := strconv.ParseFloat(valid.Max, 64); err == nil && n > bound {
		return "is too large"
	}
	return ""
}

// parseDouble takes plain decimal notation only. Java and Go agree on that; of their other spellings (hexadecimal, NaN, suffixes)
// none makes sense in a configuration.
func parseDouble(v string) (float64, error) {
	if strings.Trim(v, "0123456789+-.eE") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(v, 64)
}

func listReason(list []string, valid Valid) string {
	if valid.NonEmpty && len(list) == 0 {
		return "is empty"
	}
	for i, e := range list {
		if valid.Unique && e == "" {
			return "has a blank element"
		}
		if valid.Unique && slices.Contains(list[:i], e) {
			return "has " + e + " twice"
		}
		if !oneOf(e, valid) {
			return "has the unknown element " + strconv.Quote(e)
		}
	}
	return ""
}

func stringReason(v string, k Key) string {
	switch {
	case k.Valid.NonEmpty && v == "":
		return "is empty"
	case !oneOf(v, k.Valid):
		return "is not known"
	case k.Type == Class && (v == "" || strings.ContainsFunc(v, blank)):
		return "is not the name of a Java class"
	default:
		return ""
	}
}

func oneOf(v string, valid Valid) bool {
	if len(valid.OneOf) == 0 {
		return true
	}
	return slices.ContainsFunc(valid.OneOf, func(o string) bool { return o == v || valid.IgnoreCase && strings.EqualFold(o, v) })
}

// Normalize writes a value the one way in which equal values are equal text: what Kafka's DescribeConfigs answers compares equal to
// what was asked. A value that is not of the type comes back trimmed.
func Normalize(t Type, value string) string {
	v := strings.TrimFunc(value, blank)
	switch t {
	case Boolean:
		return strings.ToLower(v)
	case Int, Short, Long:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return strconv.FormatInt(n, 10)
		}
	case Double:
		if f, err := parseDouble(v); err == nil {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
	case List:
		return strings.Join(elements(v), ",")
	default:
	}
	return v
}

// Equal reports whether Kafka reads the two values alike.
func Equal(t Type, a, b string) bool { return Normalize(t, a) == Normalize(t, b) }
