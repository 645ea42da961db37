"""A local page that classifies the images one drops on it, shows where the network looked, and keeps corrections."""
