package local

import "strings"

// splitDocuments cuts a YAML stream at its separator lines.
func splitDocuments(text string) []string {
	var documents []string
	var current strings.Builder
	for line := range strings.Lines(text) {
		if trimmed := strings.TrimRight(line, " \t\r\n"); trimmed == "---" || strings.HasPrefix(line, "--- ") {
			documents = append(documents, current.String())
			current.Reset()
			continue
		}
		current.WriteString(line)
	}
	return append(documents, current.String())
}
