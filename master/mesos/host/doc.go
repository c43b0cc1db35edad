// Package host tells the numbers of the machine that masters and agents show beside their own.
package host
