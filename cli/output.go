package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"sigs.k8s.io/yaml"
)

// addOutput adds -o with the formats a command knows; "" is its table.
func addOutput(use interface {
	StringVarP(p *string, name, shorthand, value, usage string)
}, format *string, formats ...string,
) {
	use.StringVarP(format, "output", "o", "", "output format: "+strings.Join(formats, ", "))
}

func checkOutput(format string, formats ...string) error {
	if format == "" || slices.Contains(formats, format) {
		return nil
	}
	return usagef("unknown output format %q: use one of %s", format, strings.Join(formats, ", "))
}

// printData writes data as JSON or YAML.
func printData(w io.Writer, format string, data any) error {
	var out []byte
	var err error
	if format == "yaml" {
		out, err = yaml.Marshal(data)
	} else {
		out, err = json.MarshalIndent(data, "", "    ")
		out = append(out, '\n')
	}
	if err != nil {
		return fmt.Errorf("write as %s: %w", format, err)
	}
	_, err = w.Write(out)
	return err
}

// printTable writes rows in columns, as kubectl does.
func printTable(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 6, 4, 3, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}
