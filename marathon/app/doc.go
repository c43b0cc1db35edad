// Package app holds Marathon's definitions: apps, groups, their ids and versions.
//
// It is pure: no I/O, no clock, no chance but what is handed in, and nothing here is changed once it was made. A
// definition takes this road:
//
//	body --ParseApp--> Draft --Create, Replace, Update--> *App --Group.WithApp--> *Group --Commit--> *Group
//
// A Draft is what a user wrote, with its types checked. Create, Replace and Update convert the forms of older
// versions, fill in defaults and apply every rule that concerns one app. Commit gives a changed tree its service
// ports and versions and applies the rules that concern the whole tree. An *App in a tree is therefore always
// complete and valid, and two of them may be shared by many trees.
//
// Every refusal is an *Invalid; it carries the text, the paths and the class that an answer over HTTP needs.
package app
