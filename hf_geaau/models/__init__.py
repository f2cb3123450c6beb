"""The transformers models of hf_geaau."""
