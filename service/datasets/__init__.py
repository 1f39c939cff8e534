"""Data sets: taken in, read by a job, shown, and handed to training and evaluation."""

from service.datasets.pictures import joined_pictures as joined_pictures
from service.datasets.pictures import pictures as pictures
from service.datasets.registration import register as register
from service.datasets.uploads import remove_lost_uploads as remove_lost_uploads
