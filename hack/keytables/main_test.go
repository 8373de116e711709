package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidLiteral(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		reason string
		in     *validator
		want   string
	}{
		{"no validator", nil, ""},
		{"a range", &validator{Class: "Range", Text: "[0,...]", Min: "0"}, `Min: "0"`},
		{"a range or one value", &validator{Class: "LambdaValidator", Text: "[1,...,9] or -1"}, `Min: "1", Max: "9", Or: "-1"`},
		{"3.9's prose for it", &validator{Class: "LambdaValidator", Text: minusOneText + " remote.log.manager.thread.pool.size"}, `Min: "1", Or: "-1"`},
		{"words", &validator{Class: "CaseInsensitiveValidString", Text: "(case insensitive) [A, B]", ValidStrings: []string{"A", "B"}}, `OneOf: []string{"A", "B"}, IgnoreCase: true`},
		{"a list that must not be empty", &validator{Class: "ValidList", IsEmptyAllowed: &no}, `NonEmpty: true, Unique: true`},
		{"a list that may", &validator{Class: "ValidList", IsEmptyAllowed: &yes}, `Unique: true`},
		{"nothing beyond the type", &validator{Class: "NonNullValidator", Text: "non-null string"}, ""},
		{"code", &validator{Class: "Voters", Text: "non-empty list"}, `Text: "non-empty list"`},
	} {
		if diff := cmp.Diff(test.want, validLiteral(key{Validator: test.in})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

func TestDeprecatedIsTheKeyAndNotItsDefault(t *testing.T) {
	for doc, want := range map[string]bool{
		"DEPRECATED: An alias for delegation.token.secret.key":                         true,
		"[DEPRECATED] The maximum difference":                                          true,
		"The pool. This config is deprecated since 4.2, please use another":            true,
		"This configuration has been deprecated and will be removed in Kafka 5.0.":     true,
		"<p>The scope was previously stored in the deprecated <code>x</code> key.</p>": false,
		"": false,
	} {
		if got := deprecated(doc); got != want {
			t.Errorf("deprecated(%q) = %v, want %v", doc, got, want)
		}
	}
}
