package v1alpha1

import (
	"bytes"
	"encoding/json"
)

// Config is Kafka configuration by key. Kafka's values are text; numbers and booleans of
// YAML mean their text.
type Config map[string]ConfigValue

// ConfigValue is the text of one value. A list or an object, which Kafka does not know,
// is kept as its JSON text, so that validation can name it; reading never fails, because
// one unreadable object would blind every watch of its kind.
type ConfigValue string

// UnmarshalJSON reads text, numbers and booleans as their text.
func (v *ConfigValue) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*v = ConfigValue(s)
		return nil
	}
	*v = ConfigValue(data)
	return nil
}
