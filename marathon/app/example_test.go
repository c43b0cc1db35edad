package app_test

import (
	"encoding/json"
	"fmt"
	"time"

	"starling/marathon/app"
)

// A definition is posted, and then scaled by a partial update.
func Example() {
	settings := app.DefaultSettings()
	now := time.Date(2024, 5, 4, 10, 11, 12, 0, time.UTC)
	tree := app.EmptyRoot()

	draft, err := app.ParseApp([]byte(`{"id":"/shop/web","cmd":"./serve","uris":["http://x/web.tgz"]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	id, _ := draft.ID(app.Root)
	web, err := draft.Create(id, tree.RulesFor(id, settings))
	if err != nil {
		fmt.Println(err)
		return
	}
	tree, _ = app.Commit(tree, tree.WithApp(web), app.Change{Now: now, Settings: settings})

	draft, _ = app.ParseUpdate([]byte(`{"instances":3}`))
	web, _ = draft.Update(tree.App(id), tree.RulesFor(id, settings))
	tree, _ = app.Commit(tree, tree.WithApp(web), app.Change{Now: now.Add(time.Minute), Settings: settings})

	web = tree.App(id)
	info, _ := json.Marshal(web.VersionInfo)
	fmt.Println(web.Instances, web.ServicePorts(), web.Fetch[0].Extract, string(info))

	_, err = draft.Create("/other", tree.RulesFor("/other", settings))
	fmt.Println(err)

	// Output:
	// 3 [10000] true {"lastScalingAt":"2024-05-04T10:12:12.000Z","lastConfigChangeAt":"2024-05-04T10:11:12.000Z"}
	// Object is not valid; /: AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.
}
