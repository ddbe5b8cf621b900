package demo

import (
	"fmt"
	"math/rand/v2"
)

// User is a row of a profile service.
type User struct {
	Name  string `json:"name"`
	Email string `json:"email"`
	City  string `json:"city"`
}

// Product is a row of a shop. Price is in cents.
type Product struct {
	Title string `json:"title"`
	Price int64  `json:"price"`
	Stock int64  `json:"stock"`
}

// Account is a row of a bank. Balance is in cents.
type Account struct {
	Owner   string `json:"owner"`
	Balance int64  `json:"balance"`
}

var (
	firstNames = []string{"Ada", "Bruno", "Chidi", "Dalia", "Emil", "Farah", "Grace", "Hiro", "Ines", "Jonas", "Kiran", "Lucía", "Mina", "Noor", "Olga", "Pablo", "Quinn", "Rosa", "Sven", "Thandi", "Uma", "Viktor", "Wanda", "Ximena", "Yusuf", "Zoë"}
	lastNames  = []string{"Abara", "Berg", "Castillo", "Dufour", "Eriksen", "Fontana", "Grünwald", "Haddad", "Ito", "Jansen", "Kowalska", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Petrov", "Quiroga", "Rossi", "Singh", "Tanaka", "Ueda", "Varga", "Weber", "Yilmaz", "Zhang"}
	cities     = []string{"Lisbon", "Nairobi", "Osaka", "Tallinn", "Montréal", "Pune", "Valparaíso", "Ghent", "Kraków", "Auckland"}
	things     = []string{"coffee grinder", "desk lamp", "rain jacket", "bicycle bell", "chess set", "teapot", "notebook", "headlamp", "wool blanket", "fountain pen"}
	colours    = []string{"black", "red", "olive", "sand", "navy", "white", "copper"}
)

func personName(i int) string {
	return firstNames[i%len(firstNames)] + " " + lastNames[i/len(firstNames)%len(lastNames)]
}

func userKey(i int) string { return fmt.Sprintf("user:%05d", i) }

func userRow(i int) User {
	return User{Name: personName(i), Email: fmt.Sprintf("u%05d@example.com", i), City: cities[i%len(cities)]}
}

func productKey(i int) string { return fmt.Sprintf("sku:%05d", i) }

func productRow(i int) Product {
	return Product{
		Title: colours[i%len(colours)] + " " + things[i/len(colours)%len(things)],
		Price: 500 + int64(i*37%9500),
		Stock: 100,
	}
}

func accountKey(i int) string { return fmt.Sprintf("account:%04d", i) }

// popular draws row numbers below n of which a few are asked for most of the
// time, as in every shop and every profile service.
func popular(n int, seed uint64) func() int {
	z := rand.NewZipf(rand.New(rand.NewPCG(seed, seed)), 1.2, 8, uint64(n-1))
	return func() int { return int(z.Uint64()) }
}
