"""How the embedded model is made, from nothing: data, teachers, text encoder, VAE and UNet."""
