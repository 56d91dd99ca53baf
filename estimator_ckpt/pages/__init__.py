"""What a person looks at in a browser: views as plain data, and the page that draws them."""
