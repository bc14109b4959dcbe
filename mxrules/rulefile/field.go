package rulefile

import (
	"fmt"

	"github.com/veredus/veredus/mxrules"
)

// SetField gives one setting of l the value that a rule file would write, such as
// "message_rate" and "100/s burst 20", and answers which it is. An error names the
// value and the remedy.
func SetField(l *mxrules.Limits, name, value string) (mxrules.Field, error) {
	f, ok := fieldByName(name)
	if !ok || f == mxrules.FieldReactions {
		return 0, fmt.Errorf("%.40q is no setting of a rule that takes one value", name)
	}
	if err := set(l, f, value); err != nil {
		return f, err
	}
	return f, l.Check(f)
}
