"""The pages of the app; each has `layout(library, query)`, what it shows, and `bind(app, library)`,
how it answers."""
